"""Parallel texts from files or a hub, one drawn reference per pass, length-bucketed batches."""

from __future__ import annotations

import random
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from guardrail.errors import MissingExtraError, UsageError
from guardrail.integrations.rows.record import RowError
from guardrail_training.records import (
    FileRecord,
    RecordFile,
    RowPosition,
    TrainingRowError,
    data_folder,
    read_records,
)

__all__ = [
    "HUB_PARADETOX",
    "PARADETOX",
    "DrawnPair",
    "FileRows",
    "Rows",
    "SourceColumns",
    "SourceRow",
    "TextRow",
    "bucketed_batches",
    "draw_reference",
    "drop_copies",
    "load_paradetox",
    "read_rows",
    "read_texts",
    "share_indices",
    "without_copies",
]

HUB_PARADETOX = "s-nlp/paradetox"
MEGA_BATCHES = 50
_MISSING = object()


@dataclass(frozen=True, slots=True)
class SourceColumns:
    """Which fields of a file's rows hold the source, its references (a text or a list of texts), and an
    instruction that comes before the source; empty if there is none."""

    source: str
    target: str
    instruction: str = ""


PARADETOX = SourceColumns(source="toxic", target="neutral")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One source with its references; ``number`` is its row in the file, from 1."""

    number: int
    source: str
    references: tuple[str, ...]


class Rows(Protocol):
    """Rows by their index from 0, in memory or on disk."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> SourceRow: ...
    def __iter__(self) -> Iterator[SourceRow]: ...


@dataclass(frozen=True, slots=True)
class TextRow:
    """One text of a file; ``number`` is its row, from 1."""

    number: int
    content: str


@dataclass(frozen=True, slots=True)
class DrawnPair:
    """One source and the reference that a pass drew for it."""

    number: int
    source: str
    target: str


def load_paradetox(folder: str | Path | None, *, split: str) -> list[SourceRow]:
    """Rows of one split, from ``folder/paradetox/<split>.jsonl``, else ``GUARDRAIL_DATA``, else the hub.

    The hub's copy has only a train split: its last twentieth stands in for ``dev`` there.
    """
    found = data_folder(folder)
    return read_rows(found / "paradetox" / f"{split}.jsonl") if found else _from_hub(split)


def read_rows(path: str | Path, *, columns: SourceColumns = PARADETOX) -> list[SourceRow]:
    """Every row of a file that has these columns: JSON Lines, CSV, TSV, Parquet or Arrow.

    Raises TrainingRowError for the first row that cannot be used, and for a file that is missing or empty.
    """
    return [_row(record, str(path), columns) for record in read_records(path)]


class FileRows:
    """The rows of a file that stay on disk: 16 bytes of each are in memory.

    ``of`` reads the file through once, so that a bad row is an error as in ``read_rows``; afterwards each row
    is read when it is asked for. The file must not change meanwhile.
    """

    def __init__(
        self,
        file: RecordFile,
        read: Callable[[FileRecord], SourceRow | None],
        *,
        numbers: array[int],
        offsets: array[int],
    ) -> None:
        self._file, self._read = file, read
        self._numbers, self._offsets = numbers, offsets

    @classmethod
    def of(
        cls, path: str | Path, *, columns: SourceColumns, keep: Callable[[SourceRow], SourceRow | None]
    ) -> FileRows:
        """All rows of a file as ``keep`` gives them back, without those that it gives None for."""

        def read(record: FileRecord) -> SourceRow | None:
            return keep(_row(record, str(path), columns))

        numbers, offsets, file = array("q"), array("q"), RecordFile(path)
        for place, record in file.scan():
            if read(record) is not None:
                numbers.append(place.number)
                offsets.append(place.offset)
        return cls(file, read, numbers=numbers, offsets=offsets)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int, /) -> SourceRow:
        return next(self._rows([RowPosition(self._numbers[index], self._offsets[index])]))

    def __iter__(self) -> Iterator[SourceRow]:
        return self._rows(map(RowPosition, self._numbers, self._offsets))

    def _rows(self, places: Iterable[RowPosition]) -> Iterator[SourceRow]:
        for record in self._file.read(places):
            row = self._read(record)
            if row is None:
                raise TrainingRowError(f"{self._file.path} has changed since the run began: start it again")
            yield row

    def take(self, indices: Iterable[int]) -> FileRows:
        """Some of the rows, in the order of the indices."""
        chosen = array("q", indices)
        numbers = array("q", (self._numbers[index] for index in chosen))
        offsets = array("q", (self._offsets[index] for index in chosen))
        return FileRows(self._file, self._read, numbers=numbers, offsets=offsets)


def read_texts(path: str | Path, *, field: str) -> list[TextRow]:
    """One field of every row of a file; TrainingRowError for a row in which it is not a text."""
    texts = []
    for row in read_records(path, fields={field: str}):
        if not row[field].strip():
            raise TrainingRowError(f"{path} row {row.number}: field {field!r} must be a text, not empty")
        texts.append(TextRow(number=row.number, content=row[field].strip()))
    return texts


def _row(record: FileRecord, path: str, columns: SourceColumns) -> SourceRow:
    where = f"{path} row {record.number}"
    values = {
        name: _value(record, name) for name in {columns.source, columns.target, columns.instruction} - {""}
    }
    if missing := sorted(name for name, value in values.items() if value is _MISSING):
        raise TrainingRowError(f"{where}: missing field {', '.join(missing)}")
    source = _filled(values, columns.source, where)
    if columns.instruction:
        source = f"{_filled(values, columns.instruction, where)}\n\n{source}"
    target = values[columns.target]
    references = [target] if isinstance(target, str) else target
    if not isinstance(references, list) or not references:
        raise TrainingRowError(
            f"{where}: field {columns.target} must be a text, or a list with at least one reference"
        )
    for position, reference in enumerate(references, 1):
        if not isinstance(reference, str) or not reference.strip():
            raise TrainingRowError(f"{where}: reference {position} of field {columns.target} is empty")
    return SourceRow(record.number, source, tuple(reference.strip() for reference in references))


def _value(record: FileRecord, name: str) -> Any:
    try:
        return record[name]
    except RowError:
        return _MISSING


def _filled(values: Mapping[str, Any], field: str, where: str) -> str:
    value = values[field]
    if not isinstance(value, str) or not value.strip():
        raise TrainingRowError(f"{where}: field {field} must be a text, not empty")
    return value.strip()


def _from_hub(split: str) -> list[SourceRow]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtraError(feature="loading ParaDetox from the hub", extra="train") from error
    references: dict[str, list[str]] = {}
    for record in load_dataset(HUB_PARADETOX, split="train"):
        references.setdefault(record["en_toxic_comment"], []).append(record["en_neutral_comment"])
    rows = [
        _row(FileRecord(number, {"toxic": toxic, "neutral": neutral}), HUB_PARADETOX, PARADETOX)
        for number, (toxic, neutral) in enumerate(references.items(), 1)
    ]
    held_out = len(rows) // 20
    return rows[-held_out:] if split == "dev" else rows[:-held_out]


def normalised(text: str) -> str:
    """The letters and digits of a text, case folded: equal for texts that differ in style alone."""
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def drop_copies(rows: Iterable[SourceRow]) -> list[SourceRow]:
    """The rows without references that only copy their source; a row with no other reference is left out.

    A copied reference teaches the model that copying a toxic sentence is an answer.
    """
    return [kept for row in rows if (kept := without_copies(row)) is not None]


def without_copies(row: SourceRow) -> SourceRow | None:
    """The row without references that only copy its source; None if no other is left."""
    copied = normalised(row.source)
    kept = tuple(reference for reference in row.references if normalised(reference) != copied)
    return SourceRow(row.number, row.source, kept) if kept else None


def share_indices(count: int, share: float, *, seed: int) -> Sequence[int]:
    """A seeded sample of the indices below ``count`` without replacement, in order; ``share`` in (0, 1]."""
    if not 0 < share <= 1:
        raise UsageError(f"share must be above 0 and at most 1, got {share}")
    if share == 1:
        return range(count)
    return sorted(random.Random(f"share-{seed}").sample(range(count), max(1, round(count * share))))


def draw_reference(row: SourceRow, *, seed: int, pass_index: int) -> DrawnPair:
    """The row's source with one reference, drawn by seed, row and pass alone.

    References are drawn without replacement from pass to pass and start over when they are used up.
    """
    order = list(range(len(row.references)))
    random.Random(f"reference-{seed}-{row.number}").shuffle(order)
    return DrawnPair(row.number, row.source, row.references[order[pass_index % len(order)]])


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
