"""Candidates as token batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from guardrail.rewriters.pairs import tokens_of_pair
from research.verifier.examples import FAULTS, Example

__all__ = ["UNKNOWN", "Batch", "Row", "encode", "pad"]

UNKNOWN = -1.0


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate as ids and kinds; ``targets`` has acceptable and each fault: 0, 1, or UNKNOWN."""

    ids: list[int]
    kinds: list[int]
    targets: tuple[float, ...]
    weight: float
    is_rated: bool = False
    pair: int = 0  # candidates of one source need not be in one batch

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one step."""

    input_ids: Tensor  # (batch, time)
    attention_mask: Tensor  # (batch, time)
    kind_ids: Tensor  # (batch, time)
    targets: Tensor  # (batch, 1 + faults), UNKNOWN where nobody said
    weight: Tensor  # (batch,)


def encode(examples: Sequence[Example], tokenizer: Tokenizer, *, max_tokens: int) -> list[Row]:
    """The candidates as they are served, without those that are too long."""
    rows = []
    for example in examples:
        tokens = tokens_of_pair(tokenizer, example.source, example.candidate, max_tokens=max_tokens)
        if tokens is not None:
            faults = (UNKNOWN if fault is None else float(fault) for fault in example.faults)
            targets = (float(example.acceptable), *faults)
            rows.append(Row(tokens.ids, tokens.kinds, targets, example.weight, example.is_rated))
    return rows


def pad(rows: Sequence[Row]) -> Batch:
    """Rows padded to the longest of them."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask, kinds = torch.zeros_like(ids), torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row.ids)
        kinds[place, : len(row)] = torch.tensor(row.kinds)
        mask[place, : len(row)] = 1
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        kind_ids=kinds,
        targets=torch.tensor([row.targets for row in rows]).reshape(len(rows), 1 + len(FAULTS)),
        weight=torch.tensor([row.weight for row in rows]),
    )
