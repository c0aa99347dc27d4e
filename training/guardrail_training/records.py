"""Rows of data files for training and evaluation: read as ``guardrail filter`` reads them, all checked."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from guardrail.errors import UsageError
from guardrail.integrations.rows.compression import compression_of, decompressed, name_inside
from guardrail.integrations.rows.csv_rows import CsvRows
from guardrail.integrations.rows.formats import TableKind, kind_of, require_pyarrow
from guardrail.integrations.rows.json_lines import JsonLines
from guardrail.integrations.rows.record import FileRow, Position, RowError, value_of

__all__ = [
    "FileRecord",
    "RecordFile",
    "RowPosition",
    "TrainingRowError",
    "data_folder",
    "read_records",
    "required_folder",
]

Kinds = Mapping[str, type | tuple[type, ...]]


class TrainingRowError(UsageError):
    """A row of a data file cannot be used; the message names the file and the row, never the text."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One row of a file; ``number`` counts from 1: lines of JSON Lines, rows of CSV with its header.

    It is asked for a field by its name, or by a path such as ``comments.0.body``.
    """

    number: int
    content: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.content[name] if name in self.content else value_of(self.content, name)


@dataclass(frozen=True, slots=True)
class RowPosition:
    """Where a row stands: its number, and the byte that it begins at."""

    number: int
    offset: int


def data_folder(folder: str | Path | None) -> Path | None:
    """The folder that the data is read from: the given one, else ``GUARDRAIL_DATA``; None means the hub."""
    chosen = folder or os.environ.get("GUARDRAIL_DATA")
    return Path(chosen) if chosen else None


def required_folder(folder: str | Path | None) -> Path:
    """The given folder, else ``GUARDRAIL_DATA``; UsageError if neither names an existing folder."""
    chosen = data_folder(folder)
    if chosen is None:
        raise UsageError("no data folder: give it with --data or GUARDRAIL_DATA")
    if not chosen.is_dir():
        raise UsageError(f"data folder {chosen} does not exist")
    return chosen


def read_records(path: str | Path, *, fields: Kinds | None = None) -> list[FileRecord]:
    """Every row of a file, each with the named fields of the named types; blank lines are skipped.

    Raises TrainingRowError for a missing or empty file and for the first bad row: file, row number, field;
    never text.
    """
    return [record for _, record in RecordFile(path, fields=fields).scan()]


class RecordFile:
    """A file that is read a row at a time: CSV and TSV with a header, Parquet, Arrow, else JSON Lines.

    What is compressed (``.gz``, ``.zst``), and a table, is unpacked into a temporary file first. Raises
    TrainingRowError as ``read_records`` does.
    """

    def __init__(self, path: str | Path, *, fields: Kinds | None = None) -> None:
        self.path = Path(path)
        self._fields = fields or {}
        if not self.path.is_file():
            raise TrainingRowError(f"{path} not found: give its folder with --data or GUARDRAIL_DATA")
        kind = kind_of(self.path, default="jsonl")
        self._is_csv = kind == "csv"
        self._plain = self.path
        if kind == "parquet" or kind == "arrow":
            self._unpack(lambda file, out: _write_json_lines(file, out, kind))
        elif compression_of(self.path) is not None:
            self._unpack(lambda file, out: shutil.copyfileobj(decompressed(file, self.path), out))

    def scan(self) -> Iterator[tuple[RowPosition, FileRecord]]:
        """Every row with its place, in order; none at all is an error."""
        place = None
        with self._opened() as (file, rows):
            for row in rows.rows(file, rows.start):
                if row.content is None and row.error is None:  # a blank line
                    continue
                number = row.number
                if self._is_csv:
                    number = place.number + 1 if place else 2  # as spreadsheets count: the header is row 1
                place = RowPosition(number, row.end.offset - len(row.raw))
                yield place, self._record(row, number)
        if place is None:
            raise TrainingRowError(f"{self.path} holds no rows")

    def read(self, places: Iterable[RowPosition]) -> Iterator[FileRecord]:
        """The rows at places that ``scan`` gave; TrainingRowError if the file has become shorter."""
        with self._opened() as (file, rows):
            for place in places:
                file.seek(place.offset)
                start = Position(place.offset, place.number - 1)
                row = next(rows.rows(file, start), FileRow(place.number, b"", start))
                yield self._record(row, place.number)

    def _unpack(self, write: Callable[[BinaryIO, BinaryIO], object]) -> None:
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._plain = Path(folder, "rows")
        with self._understood(), self.path.open("rb") as file, self._plain.open("wb") as out:
            write(file, out)

    @contextmanager
    def _opened(self) -> Iterator[tuple[BinaryIO, JsonLines | CsvRows]]:
        with self._understood(), self._plain.open("rb") as file:
            if not self._is_csv:
                yield file, JsonLines(file)
                return
            if self._plain.stat().st_size == 0:
                raise TrainingRowError(f"{self.path} holds no rows")
            is_tsv = name_inside(self.path).suffix.lower() == ".tsv"
            rows = CsvRows(file, delimiter="\t" if is_tsv else None)
            self._require_utf8(rows.head, 1)
            if len(set(rows.names)) < len(rows.names):
                raise TrainingRowError(f"{self.path}: two columns have the same name")
            yield file, rows

    @contextmanager
    def _understood(self) -> Iterator[None]:
        try:
            yield
        except TrainingRowError:
            raise
        except UsageError as error:
            raise TrainingRowError(f"{self.path}: {error}") from None

    def _record(self, row: FileRow, number: int) -> FileRecord:
        """The row with its fields checked."""
        if row.content is None:
            problem = row.error or "no row is there any more: the file has changed"
            raise TrainingRowError(f"{self.path} row {number}: {problem}") from None
        if self._is_csv:
            self._require_utf8(row.raw, number)
        record = FileRecord(number, row.content)
        for name, kind in self._fields.items():
            try:
                value = record[name]
            except RowError:
                raise TrainingRowError(f"{self.path} row {number}: missing field {name!r}") from None
            if not isinstance(value, kind):
                raise TrainingRowError(
                    f"{self.path} row {number}: field {name!r} must not be {type(value).__name__}"
                )
        return record

    def _require_utf8(self, raw: bytes, number: int) -> None:
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            # `from None`: the decoder's exception carries the row.
            raise TrainingRowError(f"{self.path} row {number}: not UTF-8 at byte {error.start}") from None


def _write_json_lines(file: BinaryIO, out: BinaryIO, kind: TableKind) -> None:
    """The rows of a table as JSON Lines."""
    require_pyarrow()
    from guardrail.integrations.rows.tables import TableRows

    for row in TableRows(file, kind=kind).rows(file, Position()):
        line = json.dumps(row.content, ensure_ascii=False, default=str)
        out.write(line.encode("utf-8", "replace") + b"\n")
