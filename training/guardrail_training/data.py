"""Parallel sentences from a folder or a hub, one drawn reference per pass, length-bucketed batches."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import MissingExtraError, UsageError
from guardrail_training.records import TrainingRowError, data_folder, read_records

__all__ = [
    "HUB_PARADETOX",
    "Pair",
    "Row",
    "Text",
    "bucketed_batches",
    "draw_references",
    "drop_copies",
    "load_paradetox",
    "read_rows",
    "read_texts",
    "take_share",
]

HUB_PARADETOX = "s-nlp/paradetox"
MEGA_BATCHES = 50


@dataclass(frozen=True, slots=True)
class Row:
    """One toxic sentence with its neutral references; ``number`` is its row in the file, from 1."""

    number: int
    toxic: str
    neutral: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a file; ``number`` is its row, from 1."""

    number: int
    content: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One source and the reference that a pass drew for it."""

    number: int
    source: str
    target: str


def load_paradetox(folder: str | Path | None, *, split: str) -> list[Row]:
    """Rows of one split, from ``folder/paradetox/<split>.jsonl``, else ``GUARDRAIL_DATA``, else the hub.

    The hub's copy has only a train split: its last twentieth stands in for ``dev`` there.
    """
    found = data_folder(folder)
    return read_rows(found / "paradetox" / f"{split}.jsonl") if found else _from_hub(split)


def read_rows(path: str | Path) -> list[Row]:
    """Every row of a JSON Lines file with ``toxic`` (str) and ``neutral`` (list of str).

    Raises TrainingRowError for the first row that cannot be used, and for a file that is missing or empty.
    """
    return [_checked_row(row.content, number=row.number, where=str(path)) for row in read_records(path)]


def read_texts(path: str | Path, *, field: str) -> list[Text]:
    """One field of every row of a JSON Lines file; TrainingRowError for a row in which it is no text."""
    texts = []
    for row in read_records(path, fields={field: str}):
        if not row[field].strip():
            raise TrainingRowError(f"{path} row {row.number}: field {field!r} must be a text, not empty")
        texts.append(Text(number=row.number, content=row[field].strip()))
    return texts


def _checked_row(content: Mapping[str, Any], *, number: int, where: str) -> Row:
    missing = sorted({"toxic", "neutral"} - set(content))
    if missing:
        raise TrainingRowError(f"{where} row {number}: missing field {', '.join(missing)}")
    toxic, neutral = content["toxic"], content["neutral"]
    if not isinstance(toxic, str) or not toxic.strip():
        raise TrainingRowError(f"{where} row {number}: field toxic must be a sentence, not empty")
    if not isinstance(neutral, list) or not neutral:
        raise TrainingRowError(
            f"{where} row {number}: field neutral must be a list with at least one reference"
        )
    for position, reference in enumerate(neutral, 1):
        if not isinstance(reference, str) or not reference.strip():
            raise TrainingRowError(f"{where} row {number}: reference {position} of field neutral is empty")
    return Row(number=number, toxic=toxic.strip(), neutral=tuple(reference.strip() for reference in neutral))


def _from_hub(split: str) -> list[Row]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError(feature="loading ParaDetox from the hub", extra="train") from error
    references: dict[str, list[str]] = {}
    for record in load_dataset(HUB_PARADETOX, split="train"):
        references.setdefault(record["en_toxic_comment"], []).append(record["en_neutral_comment"])
    rows = [
        _checked_row({"toxic": toxic, "neutral": neutral}, number=number, where=HUB_PARADETOX)
        for number, (toxic, neutral) in enumerate(references.items(), 1)
    ]
    held_out = len(rows) // 20
    return rows[-held_out:] if split == "dev" else rows[:-held_out]


def normalised(text: str) -> str:
    """The letters and digits of a text, case folded: equal for texts that differ in style alone."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def drop_copies(rows: Iterable[Row]) -> list[Row]:
    """The rows without references that only copy their source; a row with no other reference is left out.

    A copied reference teaches the model that copying a toxic sentence is an answer.
    """
    kept = []
    for row in rows:
        neutral = tuple(
            reference for reference in row.neutral if normalised(reference) != normalised(row.toxic)
        )
        if neutral:
            kept.append(Row(number=row.number, toxic=row.toxic, neutral=neutral))
    return kept


def take_share(rows: Sequence[Row], share: float, *, seed: int) -> list[Row]:
    """A seeded sample of the rows without replacement, in file order; ``share`` in (0, 1]."""
    if not 0 < share <= 1:
        raise UsageError(f"share must be above 0 and at most 1, got {share}")
    if share == 1:
        return list(rows)
    count = max(1, round(len(rows) * share))
    chosen = random.Random(f"share-{seed}").sample(range(len(rows)), count)
    return [rows[index] for index in sorted(chosen)]


def draw_references(rows: Iterable[Row], *, seed: int, pass_index: int) -> list[Pair]:
    """One pair per row, its reference drawn by seed, row and pass alone.

    A row's references are drawn without replacement from pass to pass and start over when they are used up.
    """
    pairs = []
    for row in rows:
        order = list(range(len(row.neutral)))
        random.Random(f"reference-{seed}-{row.number}").shuffle(order)
        target = row.neutral[order[pass_index % len(order)]]
        pairs.append(Pair(number=row.number, source=row.toxic, target=target))
    return pairs


def bucketed_batches(
    lengths: Sequence[int], *, batch_size: int, seed: int, pass_index: int
) -> list[list[int]]:
    """Every index exactly once, in batches of similar length whose order is random.

    Indices are shuffled, sorted by length within groups of 50 batches, cut, and the batches shuffled: little
    padding, and batches that differ between passes. Depends on the arguments alone, so a resumed run needs
    only its position.
    """
    generator = random.Random(f"batches-{seed}-{pass_index}")
    indices = list(range(len(lengths)))
    generator.shuffle(indices)
    group = batch_size * MEGA_BATCHES
    batches = []
    for start in range(0, len(indices), group):
        ordered = sorted(indices[start : start + group], key=lambda index: lengths[index])
        batches += [ordered[cut : cut + batch_size] for cut in range(0, len(ordered), batch_size)]
    generator.shuffle(batches)
    return batches
