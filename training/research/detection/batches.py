"""Examples as token batches: length buckets, at most so many tokens each, in random order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from guardrail.detectors.windows import letter_cases
from research.detection.augment import UNKNOWN
from research.detection.labelled import TRAINED
from research.detection.mixture import DetectionExample

__all__ = ["DetectionBatch", "Encoded", "Unit", "batches", "encode", "load_tokenizer", "pad"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as ids; ``marks`` has 0, 1 or 2 (unknown) per token."""

    ids: list[int]
    cases: list[int]
    marks: list[int]
    labels: list[float]  # NaN where masked
    weight: float
    source: str
    pair: int
    origin: str


@dataclass(frozen=True, slots=True)
class DetectionBatch:
    """Tensors of one step."""

    input_ids: Tensor  # (batch, time)
    attention_mask: Tensor  # (batch, time)
    case_ids: Tensor  # (batch, time)
    labels: Tensor  # (batch, labels), NaN where masked
    marks: Tensor  # (batch, time), 2 where unknown or padding
    weight: Tensor  # (batch,)
    pair: Tensor  # (batch,), equal for texts of one pair, 0 without one


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a model folder without its stored padding and truncation."""
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def encode(examples: Sequence[DetectionExample], tokenizer: Tokenizer, *, max_tokens: int) -> list[Encoded]:
    """Ids and token marks of every example, cut at ``max_tokens`` (training only: serving never cuts)."""
    encodings = tokenizer.encode_batch([example.text.text for example in examples])
    encoded = []
    for example, encoding in zip(examples, encodings, strict=True):
        ids = list(encoding.ids)
        marks = [
            max(example.text.marks[start:end], default=UNKNOWN) if end > start else UNKNOWN
            for start, end in encoding.offsets
        ]
        cases = letter_cases(example.text.text, encoding.offsets, encoding.word_ids)
        if len(ids) > max_tokens:
            ids, marks = [*ids[: max_tokens - 1], ids[-1]], [*marks[: max_tokens - 1], UNKNOWN]
            cases = [*cases[: max_tokens - 1], cases[-1]]
        labels = [np.nan if share is None else share for share in example.labels]
        encoded.append(
            Encoded(ids, cases, marks, labels, example.weight, example.source, example.pair, example.origin)
        )
    return encoded


def pad(rows: Sequence[Encoded]) -> DetectionBatch:
    """Rows padded to the longest of them."""
    size, time = len(rows), max(len(row.ids) for row in rows)
    ids = torch.zeros(size, time, dtype=torch.long)
    mask = torch.zeros(size, time, dtype=torch.long)
    cases = torch.zeros(size, time, dtype=torch.long)
    marks = torch.full((size, time), float(UNKNOWN))
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        mask[place, : len(row.ids)] = 1
        cases[place, : len(row.ids)] = torch.tensor(row.cases)
        marks[place, : len(row.ids)] = torch.tensor(row.marks, dtype=torch.float32)
    return DetectionBatch(
        input_ids=ids,
        attention_mask=mask,
        case_ids=cases,
        labels=torch.tensor([row.labels for row in rows]).reshape(size, len(TRAINED)),
        marks=marks,
        weight=torch.tensor([row.weight for row in rows]),
        pair=torch.tensor([row.pair for row in rows]),
    )


class Unit(Protocol):
    """A row as ids; rows of one pair, a number above 0, stay together."""

    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def pair(self) -> int: ...


def batches(rows: Sequence[Unit], *, tokens: int, seed: int | None) -> list[list[int]]:
    """Positions of the rows of each batch: like lengths and pairs together, at most ``tokens`` padded tokens.

    With a seed, rows of like length are shuffled and so are the batches; without, they run from short to
    long.
    """
    rng = random.Random(seed)
    spread = 0.0 if seed is None else 3.0
    units: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        units.setdefault(row.pair or -place - 1, []).append(place)
    sized = {unit: max(len(rows[place].ids) for place in places) for unit, places in units.items()}
    groups: list[list[int]] = []
    longest = 0
    for unit in sorted(units, key=lambda unit: sized[unit] + rng.uniform(0, spread)):
        longest = max(longest, sized[unit])
        if groups and longest * (len(groups[-1]) + len(units[unit])) <= tokens:
            groups[-1].extend(units[unit])
        else:
            groups.append(list(units[unit]))
            longest = sized[unit]
    if seed is not None:
        rng.shuffle(groups)
    return groups
