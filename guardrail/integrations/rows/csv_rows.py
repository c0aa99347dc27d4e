"""CSV of which one column changes: every other byte of a row stays as it is."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from guardrail.errors import UsageError
from guardrail.integrations.rows.beginnings import BOM, require_text
from guardrail.integrations.rows.lines import dumps
from guardrail.integrations.rows.record import Line, Position, Record, lines_from, outcome_fields
from guardrail.outcome import Outcome, Span

__all__ = ["DELIMITERS", "CsvRows"]

DELIMITERS = (",", ";", "\t", "|")
LONGEST_RECORD = 1 << 26
"""Characters; a record that goes on for longer has lost the end of a quotation."""
COLUMNS = ("action", "degraded", "scores")
SHOWN_COLUMNS = 20
_SEPARATOR = re.compile(rb'"?sep=(?P<mark>[\t -!#-~])"?\r?\n', re.IGNORECASE)


class CsvRows:
    """Rows with the text in the column ``field`` of a CSV file that begins with a header.

    Quotes are doubled inside quoted cells, which may hold line breaks. Without ``delimiter`` it is the one of
    DELIMITERS that gives the header a column of that name. With ``into`` three columns are added at the end:
    ``INTO_action``, ``INTO_degraded`` and ``INTO_scores``, the latter two as JSON. Reads the header from
    ``file``; raises UsageError where it has no such column, and names those that it has. A line ``sep=;``
    before the header names the delimiter, as spreadsheets have it, and stays.
    """

    def __init__(
        self, file: BinaryIO, *, field: str, into: str | None = None, delimiter: str | None = None
    ) -> None:
        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise UsageError(f"a delimiter is one character and no quote, not {delimiter!r}")
        # The module's limit is for all of the process, and low for texts.
        csv.field_size_limit(max(csv.field_size_limit(), LONGEST_RECORD))
        rows = _split(lines_from(file, Position()), delimiter=delimiter or ",", strict=False)
        header, before = next(rows, None), b""
        if header is not None:
            require_text(header.raw)
            if told := _SEPARATOR.fullmatch(header.raw.removeprefix(BOM)):
                delimiter, before = delimiter or told["mark"].decode(), header.raw
                header = next(rows, None)
        if header is None:
            raise UsageError("the file is empty: a CSV file with a header is needed")
        if header.error is not None:
            raise UsageError(f"the header cannot be read: {header.error}")
        source = header.raw.removeprefix(BOM).decode("utf-8", "surrogateescape")
        self._delimiter, names = _header(source, field=field, delimiter=delimiter)
        self._column, self._width = names.index(field), len(names)
        self._into = into
        self.start = header.end
        self.head = before + header.raw
        self.settings: dict[str, Any] = {
            "format": "csv",
            "field": field,
            "into": into,
            "delimiter": self._delimiter,
        }
        if into is not None:
            added = [f"{into}_{column}" for column in COLUMNS]
            if taken := sorted(set(added) & set(names)):
                raise UsageError(f"there is a column {taken[0]!r} already: choose another --into")
            self.head = before + self._with_cells(header.raw.decode("utf-8", "surrogateescape"), added)

    def records(self, file: BinaryIO, start: Position) -> Iterator[Record]:
        """One record per row; blank lines have no text."""
        for found in _split(lines_from(file, start), delimiter=self._delimiter, strict=True):
            number, raw, cells = found.number, found.raw, found.cells
            if found.error is not None:
                yield Record(number, raw, found.end, error=found.error)
            elif not cells:
                yield Record(number, raw, found.end)
            elif len(cells) != self._width:
                problem = f"{len(cells)} columns where the header has {self._width}"
                yield Record(number, raw, found.end, error=problem)
            elif not _is_unicode(cells[self._column]):
                yield Record(number, raw, found.end, error="the text is not UTF-8")
            else:
                yield Record(number, raw, found.end, cells[self._column], cell=self._cell(raw))

    def written(self, record: Record, outcome: Outcome) -> bytes:
        """The row with a new cell in the text's place, quoted where it was or where it must be."""
        if not outcome.changed and self._into is None:
            return record.raw
        row = record.raw.decode("utf-8", "surrogateescape")
        if outcome.changed:
            before = row[record.cell.start : record.cell.end]
            cell = self._quoted(outcome.text, always=before.startswith('"'))
            row = f"{row[: record.cell.start]}{cell}{row[record.cell.end :]}"
        if self._into is None:
            return row.encode("utf-8", "surrogateescape")
        fields = outcome_fields(outcome)
        return self._with_cells(row, [fields["action"], dumps(fields["degraded"]), dumps(fields["scores"])])

    def _with_cells(self, row: str, cells: list[str]) -> bytes:
        body = row.rstrip("\r\n")
        added = "".join(f"{self._delimiter}{self._quoted(cell)}" for cell in cells)
        return f"{body}{added}{row[len(body) :]}".encode("utf-8", "surrogateescape")

    def _quoted(self, text: str, *, always: bool = False) -> str:
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair cannot be written
        if always or any(mark in text for mark in (self._delimiter, '"', "\r", "\n")):
            return '"{}"'.format(text.replace('"', '""'))
        return text

    def _cell(self, raw: bytes) -> Span:
        """Where the text stands in a row that the csv module has read strictly."""
        row, at = raw.decode("utf-8", "surrogateescape"), 0
        for _ in range(self._column):
            at = _end_of_cell(row, at, self._delimiter) + 1
        return Span(at, _end_of_cell(row, at, self._delimiter))


@dataclass(frozen=True, slots=True)
class _Row:
    """The lines of one record and its cells, or the reason why they are none."""

    number: int
    raw: bytes
    end: Position
    cells: list[str]
    error: str | None


def _split(lines: Iterable[Line], *, delimiter: str, strict: bool) -> Iterator[_Row]:
    """The records that the lines make up; a cell with line breaks joins several."""
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
        yield _Row(
            number=taken[-1].end.lines - len(taken) + 1,
            raw=b"".join(line.raw for line in taken),
            end=taken[-1].end,
            cells=cells,
            error=error,
        )
        taken.clear()


def _reason(problem: str, *, lines: int) -> str:
    if "end of data" in problem or "field limit" in problem:
        return f"a quotation that begins here does not end: {lines} lines were not read"
    return f"not CSV: {problem}"


def _header(source: str, *, field: str, delimiter: str | None) -> tuple[str, list[str]]:
    """The delimiter and the names of the columns."""
    marks = DELIMITERS if delimiter is None else (delimiter,)
    readings = {mark: next(csv.reader(io.StringIO(source, newline=""), delimiter=mark)) for mark in marks}
    fitting = [mark for mark, names in readings.items() if field in names]
    if not fitting:
        names = max(readings.values(), key=len)
        shown = ", ".join(map(repr, names[:SHOWN_COLUMNS]))
        raise UsageError(f"no column {field!r}: the header has {shown}; name one with --field")
    mark = max(fitting, key=lambda mark: len(readings[mark]))
    if readings[mark].count(field) > 1:
        raise UsageError(f"there are {readings[mark].count(field)} columns {field!r}")
    return mark, readings[mark]


def _end_of_cell(row: str, start: int, delimiter: str) -> int:
    if row[start : start + 1] == '"':
        at = row.index('"', start + 1)
        while row[at + 1 : at + 2] == '"':  # doubled: part of the text
            at = row.index('"', at + 2)
        return at + 1
    end = row.find(delimiter, start)
    return len(row.rstrip("\r\n")) if end < 0 else end


def _is_unicode(text: str) -> bool:
    """False where bytes of the file were no UTF-8."""
    return not any("\udc80" <= character <= "\udcff" for character in text)
