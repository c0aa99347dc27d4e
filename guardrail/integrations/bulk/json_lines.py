"""JSON Lines of which one string changes: every other byte of a row stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from guardrail.integrations.bulk.records import BOM, Position, Record, lines_from, outcome_fields
from guardrail.integrations.lines import RowError, dumps, read_object, require_free, text_of
from guardrail.outcome import Outcome, Span

__all__ = ["JsonLines"]

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class JsonLines:
    """Rows with the text in ``field``; ``into`` names a field that receives what was done, if any should."""

    head = b""
    start = Position()

    def __init__(self, *, field: str, into: str | None = None) -> None:
        self.settings: dict[str, Any] = {"format": "jsonl", "field": field, "into": into}
        self._field = field
        self._into = into

    def records(self, file: BinaryIO, start: Position) -> Iterator[Record]:
        """One record per line; blank lines have no text."""
        for line in lines_from(file, start):
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
        cells = [cell for key, cell in _cells(content.decode()) if key == self._field]
        if len(cells) > 1:
            raise RowError(f"field {self._field!r} is there {len(cells)} times")
        return text, cells[0]


def _cells(source: str) -> Iterator[tuple[str, Span]]:
    """Key and place of every value of an object that is known to be valid JSON."""
    at = _past_space(source, source.index("{") + 1)
    while source[at] != "}":
        key, at = _DECODER.raw_decode(source, at)
        at = _past_space(source, at)
        start = _past_space(source, at + 1)  # behind the colon
        _, end = _DECODER.raw_decode(source, start)
        yield key, Span(start, end)
        at = _past_space(source, end)
        if source[at] == ",":
            at = _past_space(source, at + 1)


def _past_space(source: str, at: int) -> int:
    match = _SPACE.match(source, at)
    assert match is not None, "no space at all matches too"
    return match.end()
