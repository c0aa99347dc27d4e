"""JSON Lines of which one string changes: every other byte of a row stays as it is."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from guardrail.integrations.rows.beginnings import BOM, require_rows
from guardrail.integrations.rows.field_path import RowError, index_of, steps_to, text_of
from guardrail.integrations.rows.lines import dumps, read_object, require_free
from guardrail.integrations.rows.record import Line, Position, Record, lines_from, outcome_fields
from guardrail.outcome import Outcome, Span

__all__ = ["JsonLines"]

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class JsonLines:
    """Rows with the text in ``field``, or at that path; ``into`` names a field that receives what was done.

    Reads the first line from ``file``; raises UsageError if it shows that the file is of another kind.
    """

    head = b""
    start = Position()

    def __init__(self, file: BinaryIO, *, field: str, into: str | None = None) -> None:
        self._first = list(itertools.islice(lines_from(file, Position()), 1))
        for line in self._first:
            require_rows(line.raw)
        self.settings: dict[str, Any] = {"format": "jsonl", "field": field, "into": into}
        self._field = field
        self._into = into

    def records(self, file: BinaryIO, start: Position) -> Iterator[Record]:
        """One record per line; blank lines have no text."""
        lines: Iterable[Line] = lines_from(file, start)
        if start == self.start:
            lines = itertools.chain(
                self._first, lines_from(file, self._first[0].end if self._first else start)
            )
        for line in lines:
            number, raw = line.end.lines, line.raw
            content = raw.removeprefix(BOM) if number == 1 else raw
            if not content.strip():
                yield Record(number, raw, line.end)
                continue
            try:
                text, cell = self._found(content)
            except RowError as problem:
                yield Record(number, raw, line.end, error=str(problem))
            else:
                lead = len(raw.decode()) - len(content.decode())
                yield Record(number, raw, line.end, text, cell=cell.shifted(lead))

    def written(self, record: Record, outcome: Outcome) -> bytes:
        """The line with a new string in the text's place, in the line's own manner of escaping."""
        if not outcome.changed and self._into is None:
            return record.raw
        line = record.raw.decode()
        tail = line[record.cell.end :]
        if self._into is not None:
            added = f", {dumps(self._into)}: {dumps(outcome_fields(outcome))}"
            end = tail.rindex("}")
            tail = f"{tail[:end].rstrip()}{added}{tail[end:]}"
        if not outcome.changed:
            return f"{line[: record.cell.end]}{tail}".encode()
        text = json.dumps(outcome.text) if line.isascii() else dumps(outcome.text)
        return f"{line[: record.cell.start]}{text}{tail}".encode()

    def _found(self, content: bytes) -> tuple[str, Span]:
        row = read_object(content)
        text = text_of(row, self._field)
        if self._into is not None:
            require_free(row, self._into)
        source = content.decode()
        cells = list(_places(source, _past_space(source, 0), steps_to(row, self._field)))
        if len(cells) > 1:
            raise RowError(f"field {self._field!r} is there {len(cells)} times")
        return text, cells[0]


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
            at = _past_space(source, _past_space(source, at) + 1)  # behind the colon
        _, end = _DECODER.raw_decode(source, at)
        yield key, Span(at, end)
        at = _past_space(source, end)
        if source[at] == ",":
            at = _past_space(source, at + 1)


def _past_space(source: str, at: int) -> int:
    match = _SPACE.match(source, at)
    assert match is not None, "no space at all matches too"
    return match.end()
