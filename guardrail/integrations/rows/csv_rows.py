"""CSV and TSV: rows under a header; of a row that is written again, every byte but its text's stays."""

from __future__ import annotations

import csv
import io
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

from guardrail.errors import UsageError
from guardrail.integrations.rows.formats import require_utf8
from guardrail.integrations.rows.record import (
    Columns,
    FileRow,
    Line,
    Position,
    Result,
    RowToJudge,
    lines_from,
    to_json,
)
from guardrail.outcome import Span

__all__ = ["DELIMITERS", "CsvRows"]

DELIMITERS = (",", ";", "\t", "|")
MAX_RECORD_CHARACTERS = 1 << 26
"""A record that is longer has lost the end of a quoted field."""
SHOWN_COLUMNS = 20
_SEPARATOR = re.compile(rb'"?sep=(?P<mark>[\t -!#-~])"?\r?\n', re.IGNORECASE)


class CsvRows:
    """Rows of a CSV file that begins with a header.

    Quotes are doubled inside quoted cells, which may hold line breaks. Without ``delimiter`` it is the one of
    DELIMITERS that gives the header the text's column, or the most columns if no column is asked for. The
    fields that are added become columns at the end: ``INTO_action``, ``INTO_scores`` and so on, as JSON but
    for strings. Reads the header from ``file``; raises UsageError if it has no such column, and names those
    that it has. A line ``sep=;`` before the header names the delimiter, as spreadsheets have it, and stays.
    """

    def __init__(
        self, file: BinaryIO, columns: Columns | None = None, *, delimiter: str | None = None
    ) -> None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise UsageError(f"a delimiter is one character and no quote, not {delimiter!r}")
        # The module's limit is for all of the process, and low for texts.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_RECORD_CHARACTERS))
        lines = _split(lines_from(file, Position()), delimiter=delimiter or ",", strict=False)
        header, before = next(lines, (None, []))[0], b""
        if header is not None:
            require_utf8(header.raw)
            if separator := _SEPARATOR.fullmatch(header.raw.removeprefix(BOM_UTF8)):
                delimiter, before = delimiter or separator["mark"].decode(), header.raw
                header, _ = next(lines, (None, []))
        if header is None:
            raise UsageError("the file is empty: a CSV file with a header is needed")
        if header.error is not None:
            raise UsageError(f"the header cannot be read: {header.error}")
        source = header.raw.removeprefix(BOM_UTF8).decode("utf-8", "surrogateescape")
        field = columns.text if columns is not None else None
        self.delimiter, self.names = _header(source, field=field, delimiter=delimiter)
        self._columns = columns or Columns()
        self.start = header.end
        self.head = before + header.raw
        if self._columns.into is not None:
            added = [f"{self._columns.into}_{column}" for column in self._columns.added]
            if taken := [name for name in added if name in self.names]:
                raise UsageError(f"there is a column {taken[0]!r} already: choose another --into")
            self.head = before + self._with_cells(header.raw.decode("utf-8", "surrogateescape"), added)

    def rows(self, file: BinaryIO, start: Position) -> Iterator[FileRow]:
        """One row per record, from ``start`` on, where the file stands; bytes that are not UTF-8 are kept as
        lone surrogates."""
        for row, cells in _split(lines_from(file, start), delimiter=self.delimiter, strict=True):
            if not cells:  # a blank line, or an error
                yield row
            elif len(cells) != len(self.names):
                yield replace(row, error=f"{len(cells)} columns, and the header has {len(self.names)}")
            else:
                yield FileRow(row.number, row.raw, row.end, dict(zip(self.names, cells, strict=True)))

    def records(self, file: BinaryIO, start: Position) -> Iterator[RowToJudge]:
        """One record per row; blank lines have no text."""
        column = self.names.index(self._columns.text)
        for row in self.rows(file, start):
            if row.content is None:
                yield RowToJudge(row.number, row.raw, row.end, error=row.error)
                continue
            text = row.content[self._columns.text]
            if any("\udc80" <= character <= "\udcff" for character in text):
                yield RowToJudge(row.number, row.raw, row.end, error="the text is not UTF-8")
            else:
                cell = _cell(row.raw.decode("utf-8", "surrogateescape"), column, self.delimiter)
                yield RowToJudge(row.number, row.raw, row.end, text, cell=cell)

    def written(self, record: RowToJudge, result: Result) -> bytes:
        """The row with a new cell in the text's place, quoted where it was or where it must be."""
        if result.text is None and self._columns.into is None:
            return record.raw
        row = record.raw.decode("utf-8", "surrogateescape")
        if result.text is not None:
            before = row[record.cell.start : record.cell.end]
            cell = self._quoted(result.text, always=before.startswith('"'))
            row = f"{row[: record.cell.start]}{cell}{row[record.cell.end :]}"
        if self._columns.into is None:
            return row.encode("utf-8", "surrogateescape")
        added = [result.added[name] for name in self._columns.added]
        return self._with_cells(row, [value if isinstance(value, str) else to_json(value) for value in added])

    def _with_cells(self, row: str, cells: list[str]) -> bytes:
        body = row.rstrip("\r\n")
        added = "".join(f"{self.delimiter}{self._quoted(cell)}" for cell in cells)
        return f"{body}{added}{row[len(body) :]}".encode("utf-8", "surrogateescape")

    def _quoted(self, text: str, *, always: bool = False) -> str:
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be written
        if always or any(mark in text for mark in (self.delimiter, '"', "\r", "\n")):
            return '"{}"'.format(text.replace('"', '""'))
        return text


def _split(lines: Iterable[Line], *, delimiter: str, strict: bool) -> Iterator[tuple[FileRow, list[str]]]:
    """The rows that the lines make up, and their cells; a cell with line breaks joins several lines."""
    taken: list[Line] = []

    def decoded() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line.raw.decode("utf-8", "surrogateescape")

    reader = csv.reader(decoded(), delimiter=delimiter, strict=strict)
    while True:
        cells, error = [], None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            error = _reason(str(problem), lines=len(taken))
        number, raw = taken[-1].end.lines - len(taken) + 1, b"".join(line.raw for line in taken)
        yield FileRow(number, raw, taken[-1].end, error=error), cells
        taken.clear()


def _reason(problem: str, *, lines: int) -> str:
    if "end of data" in problem or "field limit" in problem:
        return f"unterminated quoted field: {lines} lines were not read"
    return f"not CSV: {problem}"


def _header(source: str, *, field: str | None, delimiter: str | None) -> tuple[str, list[str]]:
    """The delimiter and the names of the columns."""
    marks = DELIMITERS if delimiter is None else (delimiter,)
    readings = {mark: next(csv.reader(io.StringIO(source, newline=""), delimiter=mark)) for mark in marks}
    fitting = [mark for mark, names in readings.items() if field is None or field in names]
    if not fitting:
        names = max(readings.values(), key=len)
        shown = ", ".join(map(repr, names[:SHOWN_COLUMNS]))
        raise UsageError(f"no column {field!r}: the header has {shown}; name one with --field")
    mark = max(fitting, key=lambda mark: len(readings[mark]))
    if field is not None and readings[mark].count(field) > 1:
        raise UsageError(f"there are {readings[mark].count(field)} columns {field!r}")
    return mark, readings[mark]


def _cell(row: str, column: int, delimiter: str) -> Span:
    """Where a cell stands in a row that the csv module has read strictly."""
    at = 0
    for _ in range(column):
        at = _end_of_cell(row, at, delimiter) + 1
    return Span(at, _end_of_cell(row, at, delimiter))


def _end_of_cell(row: str, start: int, delimiter: str) -> int:
    if row[start : start + 1] == '"':
        at = row.index('"', start + 1)
        while row[at + 1 : at + 2] == '"':  # doubled: part of the text
            at = row.index('"', at + 2)
        return at + 1
    end = row.find(delimiter, start)
    return len(row.rstrip("\r\n")) if end < 0 else end
