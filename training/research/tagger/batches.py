"""Tagged texts as token batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from guardrail.rewriters.edits.tagger import tokens_of_words
from guardrail.rewriters.edits.tags import words
from research.tagger.examples import TaggedExample

__all__ = ["UNTAGGED", "TaggedRow", "TaggerBatch", "encode", "pad"]

UNTAGGED = -100


@dataclass(frozen=True, slots=True)
class TaggedRow:
    """A text as ids, and the number of each token's tag, ``UNTAGGED`` where a word continues."""

    ids: list[int]
    tags: list[int]
    weight: float
    pair: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class TaggerBatch:
    """Tensors of one step."""

    input_ids: Tensor  # (batch, time)
    attention_mask: Tensor  # (batch, time)
    tags: Tensor  # (batch, time)
    weight: Tensor  # (batch,)


def encode(
    examples: Sequence[TaggedExample], tokenizer: Tokenizer, *, labels: Sequence[str], max_tokens: int
) -> list[TaggedRow]:
    """The examples as they are served, without those that are too long or have no word."""
    numbers = {label: number for number, label in enumerate(labels)}
    rows = []
    for example in examples:
        tokens = tokens_of_words(tokenizer, example.source)
        if not tokens.words or len(tokens) > max_tokens:
            continue
        label_at = {
            word.start: label for word, label in zip(words(example.source), example.labels, strict=True)
        }
        tags = [UNTAGGED] * len(tokens)
        for word, first in zip(tokens.words, tokens.firsts, strict=True):
            tags[first] = numbers[label_at[word.start]]
        rows.append(TaggedRow(tokens.ids, tags, example.weight))
    return rows


def pad(rows: Sequence[TaggedRow]) -> TaggerBatch:
    """Rows padded to the longest of them."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask, tags = torch.zeros_like(ids), torch.full_like(ids, UNTAGGED)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row.ids)
        tags[place, : len(row)] = torch.tensor(row.tags)
        mask[place, : len(row)] = 1
    return TaggerBatch(ids, mask, tags, torch.tensor([row.weight for row in rows]))
