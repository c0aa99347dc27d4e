"""Examples as token batches: length buckets, at most so many tokens each, in random order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from guardrail.outcome import LABELS
from guardrail_training.detection.augment import UNKNOWN
from guardrail_training.detection.mixture import Example

__all__ = ["Batch", "Encoded", "batches", "encode", "load_tokenizer", "pad"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as ids; ``marks`` has 0, 1 or 2 (unknown) per token."""

    ids: list[int]
    marks: list[int]
    labels: list[float]  # NaN where masked
    weight: float
    source: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one step."""

    input_ids: Tensor  # (batch, time)
    attention_mask: Tensor  # (batch, time)
    labels: Tensor  # (batch, labels), NaN where masked
    marks: Tensor  # (batch, time), 2 where unknown or padding
    weight: Tensor  # (batch,)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a model folder without its stored padding and truncation."""
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(examples: Sequence[Example], tokenizer: Tokenizer, *, max_tokens: int) -> list[Encoded]:
    """Ids and token marks of every example, cut at ``max_tokens`` (training only: serving never cuts)."""
    encodings = tokenizer.encode_batch([example.text.text for example in examples])
    encoded = []
    for example, encoding in zip(examples, encodings, strict=True):
        ids = list(encoding.ids)
        marks = [
            max(example.text.marks[start:end], default=UNKNOWN) if end > start else UNKNOWN
            for start, end in encoding.offsets
        ]
        if len(ids) > max_tokens:
            ids, marks = [*ids[: max_tokens - 1], ids[-1]], [*marks[: max_tokens - 1], UNKNOWN]
        labels = [np.nan if share is None else share for share in example.labels]
        encoded.append(Encoded(ids, marks, labels, example.weight, example.source))
    return encoded


def pad(rows: Sequence[Encoded]) -> Batch:
    """Rows padded to the longest of them."""
    size, time = len(rows), max(len(row.ids) for row in rows)
    ids = torch.zeros(size, time, dtype=torch.long)
    mask = torch.zeros(size, time, dtype=torch.long)
    marks = torch.full((size, time), float(UNKNOWN))
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        mask[place, : len(row.ids)] = 1
        marks[place, : len(row.ids)] = torch.tensor(row.marks, dtype=torch.float32)
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        labels=torch.tensor([row.labels for row in rows]).reshape(size, len(LABELS)),
        marks=marks,
        weight=torch.tensor([row.weight for row in rows]),
    )


def batches(rows: Sequence[Encoded], *, tokens: int, seed: int | None) -> list[list[int]]:
    """Positions of the rows of each batch: like lengths together, at most ``tokens`` padded tokens.

    With a seed, rows of like length are shuffled and so are the batches; without, they run from short to
    long.
    """
    rng = random.Random(seed)
    spread = 0.0 if seed is None else 3.0
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids) + rng.uniform(0, spread))
    groups: list[list[int]] = []
    longest = 0
    for place in order:
        longest = max(longest, len(rows[place].ids))
        if groups and longest * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
            longest = len(rows[place].ids)
    if seed is not None:
        rng.shuffle(groups)
    return groups
