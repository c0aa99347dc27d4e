"""Rows of JSON Lines, CSV and TSV files, every one checked, for training and evaluation alike."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from guardrail.errors import UsageError

__all__ = [
    "Place",
    "Record",
    "RecordFile",
    "TrainingRowError",
    "data_folder",
    "read_records",
    "required_folder",
]

Kinds = Mapping[str, type | tuple[type, ...]]
DELIMITERS = {".csv": ",", ".tsv": "\t"}
MARK = b"\xef\xbb\xbf"  # some editors begin a UTF-8 file with it


class TrainingRowError(UsageError):
    """A row of a data file cannot be used; the message names the file and the row, never the text."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file; ``number`` counts from 1: lines of JSON Lines, rows of a table with its header."""

    number: int
    content: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.content[name]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its number, and the byte that it begins at."""

    number: int
    offset: int


def data_folder(folder: str | Path | None) -> Path | None:
    """The folder that the data is read from: the given one, else ``GUARDRAIL_DATA``; None means the hub."""
    chosen = folder or os.environ.get("GUARDRAIL_DATA")
    return Path(chosen) if chosen else None


def required_folder(folder: str | Path | None) -> Path:
    """The given folder, else ``GUARDRAIL_DATA``; UsageError where neither names an existing folder."""
    chosen = data_folder(folder)
    if chosen is None:
        raise UsageError("no data folder: give it with --data or GUARDRAIL_DATA")
    if not chosen.is_dir():
        raise UsageError(f"data folder {chosen} does not exist")
    return chosen


def read_records(path: str | Path, *, fields: Kinds | None = None) -> list[Record]:
    """Every row of a file, each with the named fields of the named types; blank lines are skipped.

    Raises TrainingRowError for a missing or empty file and for the first bad row: file, row number, field;
    never text.
    """
    return [record for _, record in RecordFile(path, fields=fields).scan()]


class RecordFile:
    """A file of rows that is read a row at a time: ``.csv`` and ``.tsv`` with a header, else JSON Lines.

    Raises TrainingRowError as ``read_records`` does.
    """

    def __init__(self, path: str | Path, *, fields: Kinds | None = None) -> None:
        self.path = Path(path)
        self._fields = fields or {}
        if not self.path.is_file():
            raise TrainingRowError(f"{path} not found: give its folder with --data or GUARDRAIL_DATA")
        delimiter = DELIMITERS.get(self.path.suffix.lower())
        self._format = Lines(self.path) if delimiter is None else Table(self.path, delimiter=delimiter)

    def scan(self) -> Iterator[tuple[Place, Record]]:
        """Every row with its place, in order; none at all is an error."""
        place = None
        with self.path.open("rb") as file:
            for place, content in self._format.rows(file):
                yield place, Record(place.number, self._checked(content, place.number))
        if place is None:
            raise TrainingRowError(f"{self.path} holds no rows")

    def read(self, places: Iterable[Place]) -> Iterator[Record]:
        """The rows at places that ``scan`` gave; TrainingRowError where the file has become shorter."""
        with self.path.open("rb") as file:
            for place in places:
                file.seek(place.offset)
                _, content = next(self._format.rows(file, start=place), (place, None))
                yield Record(place.number, self._checked(content, place.number))

    def _checked(self, content: Any, number: int) -> Mapping[str, Any]:
        if not isinstance(content, dict):
            raise TrainingRowError(
                f"{self.path} row {number}: expected an object, got {type(content).__name__}"
            )
        for name, kind in self._fields.items():
            if name not in content:
                raise TrainingRowError(f"{self.path} row {number}: missing field {name!r}")
            if not isinstance(content[name], kind):
                found = type(content[name]).__name__
                raise TrainingRowError(f"{self.path} row {number}: field {name!r} must not be {found}")
        return content


class Lines:
    """JSON Lines. Cut by newlines alone: JSON strings may hold other characters that Python cuts at."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self, file: BinaryIO, *, start: Place | None = None) -> Iterator[tuple[Place, Any]]:
        """Decoded rows with their places, from where the file stands."""
        first, offset = (start.number, start.offset) if start else (1, 0)
        for number, line in enumerate(file, first):
            if content := _text(line, number, self._path).strip():
                yield Place(number, offset), self._decoded(content, number)
            offset += len(line)

    def _decoded(self, content: str, number: int) -> Any:
        try:
            return json.loads(content)
        except json.JSONDecodeError as error:
            # `from None`: the decoder's exception carries the whole line, which is text.
            raise TrainingRowError(
                f"{self._path} row {number}: not valid JSON at column {error.colno}"
            ) from None


class Table:
    """A CSV or TSV file; its header is row 1, as spreadsheets count. Every value is a string."""

    def __init__(self, path: Path, *, delimiter: str) -> None:
        self._path, self._delimiter = path, delimiter
        with path.open("rb") as file:
            _, header = next(self._cells(file, start=Place(1, 0)), (None, []))
        if len(set(header)) < len(header):
            raise TrainingRowError(f"{path}: two columns have the same name")
        self._header: Sequence[str] = header

    def rows(self, file: BinaryIO, *, start: Place | None = None) -> Iterator[tuple[Place, Any]]:
        """Rows as dicts with their places, from where the file stands; the header is none of them."""
        for place, cells in self._cells(file, start=start or Place(1, 0)):
            if place.number == 1:
                continue
            if len(cells) != len(self._header):
                raise TrainingRowError(
                    f"{self._path} row {place.number}: {len(cells)} columns, the header has "
                    f"{len(self._header)}"
                )
            yield place, dict(zip(self._header, cells, strict=True))

    def _cells(self, file: BinaryIO, *, start: Place) -> Iterator[tuple[Place, list[str]]]:
        number, offset, read = start.number, start.offset, start.offset

        def lines() -> Iterator[str]:
            # The reader asks for lines one at a time, more than one where a quoted cell holds a newline.
            nonlocal read
            for line in file:
                read += len(line)
                yield _text(line, number, self._path)

        reader = csv.reader(lines(), delimiter=self._delimiter, strict=True)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error:
                raise TrainingRowError(
                    f"{self._path} row {number}: not valid CSV; check its quotes"
                ) from None
            if cells is None:
                return
            if cells:
                yield Place(number, offset), cells
                number += 1
            offset = read


def _text(line: bytes, number: int, path: Path) -> str:
    try:
        return line.removeprefix(MARK).decode()
    except UnicodeDecodeError as error:
        # `from None`: the decoder's exception carries the line.
        raise TrainingRowError(f"{path} row {number}: not UTF-8 at byte {error.start}") from None
