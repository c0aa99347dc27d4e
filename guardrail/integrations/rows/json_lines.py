"""JSON Lines: rows as objects; of a row that is written again, every byte but its text's stays as it is."""

from __future__ import annotations

import itertools
import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from guardrail.integrations.rows.formats import require_json_lines
from guardrail.integrations.rows.record import (
    Columns,
    FileRow,
    Line,
    Position,
    Result,
    RowError,
    RowToJudge,
    index_of,
    lines_from,
    require_free,
    steps_to,
    text_of,
    to_json,
)
from guardrail.outcome import Span

__all__ = ["JsonLines"]

MAX_BLANK_LINES = 64
"""Before the first row; behind more of them, a file of another format is not told by it."""
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPED_ASCII = re.compile(r"\\u00[2-7]")
_DECODER = json.JSONDecoder()


class JsonLines:
    """Rows with the text in a field, or at a path.

    Reads the first lines from ``file``; raises UsageError if it shows that the file is of another format.
    """

    head = b""
    start = Position()
    delimiter: str | None = None

    def __init__(self, file: BinaryIO, columns: Columns | None = None) -> None:
        self._first: list[Line] = []  # with the blank ones before it
        for line in itertools.islice(lines_from(file, Position()), MAX_BLANK_LINES):
            self._first.append(line)
            require_json_lines(line.raw)
            if line.raw.removeprefix(BOM_UTF8).strip():
                break
        self._columns = columns or Columns()
        self._is_plain = _PLAIN_KEY.fullmatch(self._columns.text) is not None

    def rows(self, file: BinaryIO, start: Position) -> Iterator[FileRow]:
        """One row per line, from ``start`` on, where the file stands; at the first, as opening it left it."""
        lines: Iterable[Line] = lines_from(file, start)
        if start == self.start and self._first:
            lines = itertools.chain(self._first, lines_from(file, self._first[-1].end))
        for line in lines:
            number, raw = line.end.lines, line.raw
            content = (raw.removeprefix(BOM_UTF8) if number == 1 else raw).strip()
            if not content:
                yield FileRow(number, raw, line.end)
                continue
            try:
                yield FileRow(number, raw, line.end, _object(content))
            except RowError as problem:
                yield FileRow(number, raw, line.end, error=str(problem))

    def records(self, file: BinaryIO, start: Position) -> Iterator[RowToJudge]:
        """One record per line; blank lines have no text."""
        for row in self.rows(file, start):
            if row.content is None:
                yield RowToJudge(row.number, row.raw, row.end, error=row.error)
                continue
            try:
                text = text_of(row.content, self._columns.text)
                if self._columns.into is not None:
                    require_free(row.content, self._columns.into)
                cell = self._cell(row)
            except RowError as problem:
                yield RowToJudge(row.number, row.raw, row.end, error=str(problem))
            else:
                yield RowToJudge(row.number, row.raw, row.end, text, cell=cell)

    def written(self, record: RowToJudge, result: Result) -> bytes:
        """The line with a new string in the text's place, in the line's own manner of escaping."""
        into = self._columns.into
        if result.text is None and into is None:
            return record.raw
        line = record.raw.decode()
        tail = line[record.cell.end :]
        if into is not None:
            end = tail.rindex("}")
            tail = f"{tail[:end].rstrip()}, {to_json(into)}: {to_json(result.added)}{tail[end:]}"
        if result.text is None:
            return f"{line[: record.cell.end]}{tail}".encode()
        text = json.dumps(result.text) if line.isascii() else to_json(result.text)
        return f"{line[: record.cell.start]}{text}{tail}".encode()

    def _cell(self, row: FileRow) -> Span:
        assert row.content is not None, "only a row that was read has a text"
        source, field = row.raw.decode(), self._columns.text
        is_written_plainly = self._is_plain and field in row.content and not _ESCAPED_ASCII.search(source)
        if is_written_plainly and source.count(key := f'"{field}"') == 1:  # then there is no other
            return _value_behind(source, source.index(key) + len(key))
        start = _past_space(source, source.startswith("\ufeff"))
        cells = list(_places(source, start, steps_to(row.content, field)))
        if len(cells) > 1:
            raise RowError(f"field {field!r} appears {len(cells)} times")
        return cells[0]


def _object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; RowError if it holds none."""
    try:
        content = json.loads(line.decode())
    except UnicodeDecodeError as problem:
        raise RowError(f"not UTF-8 at byte {problem.start}") from None
    except json.JSONDecodeError as problem:
        message = problem.msg.removesuffix(" at")
        raise RowError(f"not JSON: {message} at character {problem.pos}") from None
    except (RecursionError, ValueError):
        raise RowError("not usable JSON: nested too deeply, or a number with thousands of digits") from None
    if not isinstance(content, dict):
        raise RowError(f"expected a JSON object, got {type(content).__name__}")
    return content


def _value_behind(source: str, key_end: int) -> Span:
    start = _past_space(source, _past_space(source, key_end) + 1)  # behind the colon
    _, end = _DECODER.raw_decode(source, start)
    return Span(start, end)


def _places(source: str, start: int, steps: Sequence[str]) -> Iterator[Span]:
    """Every place that the steps lead to from the value which begins at ``start``: keys may be repeated."""
    if not steps:
        _, end = _DECODER.raw_decode(source, start)
        yield Span(start, end)
    elif source[start] in "{[":
        step = index_of(steps[0]) if source[start] == "[" else steps[0]
        for key, cell in _members(source, start):
            if key == step:
                yield from _places(source, cell.start, steps[1:])


def _members(source: str, start: int) -> Iterator[tuple[str | int, Span]]:
    """Key or index, and place, of every value of an object or list that is known to be valid JSON."""
    at = _past_space(source, start + 1)
    for index in itertools.count():
        if source[at] in "]}":
            return
        key: str | int = index
        if source[start] == "{":
            key, at = _DECODER.raw_decode(source, at)
            cell = _value_behind(source, at)
        else:
            cell = Span(at, _DECODER.raw_decode(source, at)[1])
        yield key, cell
        at = _past_space(source, cell.end)
        if source[at] == ",":
            at = _past_space(source, at + 1)


def _past_space(source: str, at: int) -> int:
    match = _SPACE.match(source, at)
    assert match is not None, "no space at all matches too"
    return match.end()
