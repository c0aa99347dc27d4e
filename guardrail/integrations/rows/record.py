"""Rows of files: where they stand, the text in them, and what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, runtime_checkable

from guardrail.errors import UsageError
from guardrail.outcome import Span

__all__ = [
    "Assembled",
    "Columns",
    "FileRow",
    "Format",
    "Line",
    "Position",
    "Result",
    "RowError",
    "RowToJudge",
    "index_of",
    "lines_from",
    "require_free",
    "steps_to",
    "text_of",
    "to_json",
    "value_of",
]

NOWHERE = Span(0, 0)
MAX_LINE_BYTES = 1 << 26
"""A file with a longer line is refused, so that no input can fill the memory."""
MAX_INDEX_DIGITS = 9
"""No list is longer; and Python reads no number of thousands of digits."""
_MISSING = object()


class RowError(Exception):
    """Why a row cannot be used, in words that quote nothing of its text."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The field, or path, of the text, and the field that receives what was found: its ``added`` keys."""

    text: str = "text"
    into: str | None = None
    added: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two rows: bytes and lines before it; in a table, ``offset`` counts rows too."""

    offset: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its line feed, and the position behind it."""

    raw: bytes = field(repr=False)
    end: Position


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row as it was read. ``content`` is None for a blank line, and for a row with an ``error``.

    ``number`` is the line it begins on, or the row of a table, from 1. ``raw`` is the row as it was.
    """

    number: int
    raw: bytes = field(repr=False)
    end: Position
    content: Mapping[str, Any] | None = field(default=None, repr=False)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RowToJudge:
    """One row to judge. ``text`` is None for a blank line, and for a row with an ``error``.

    ``number`` and ``raw`` are those of the row; of a table's row, ``raw`` is the text alone, or all of it as
    JSON if it has an error. ``cell`` is where the text stands in the decoded ``raw``.
    """

    number: int
    raw: bytes = field(repr=False)
    end: Position
    text: str | None = field(default=None, repr=False)
    error: str | None = None
    cell: Span = NOWHERE


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a record: what to count it as, a new text if it changed, the fields to add.

    ``error`` says why it could not be judged.
    """

    label: str = ""
    text: str | None = field(default=None, repr=False)
    added: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_degraded: bool = False
    error: str | None = None


class Format(Protocol):
    """A file of one format, opened: reads its records, and writes them with what became of them."""

    head: bytes
    """What stands before the first record of the output."""
    start: Position
    """Where the first record begins."""

    @property
    def delimiter(self) -> str | None:
        """What separates the cells of CSV."""
        ...

    def records(self, file: BinaryIO, start: Position) -> Iterator[RowToJudge]:
        """The records from ``start`` on, where the file stands; at the first one, as opening it left it."""
        ...

    def written(self, record: RowToJudge, result: Result) -> bytes:
        """The record with its result; as it was if nothing changed and nothing is added."""
        ...


@runtime_checkable
class Assembled(Format, Protocol):
    """A format that cannot be written before all is judged; what is ``written`` is kept apart."""

    def set_aside(self, record: RowToJudge) -> bytes:
        """What is kept of a record that is not in the output."""
        ...

    def assemble(self, rows: BinaryIO, target: BinaryIO, *, start: Position, end: Position | None) -> None:
        """Makes an output of what was kept of the rows between two positions, or up to the last one."""
        ...


def lines_from(file: BinaryIO, start: Position) -> Iterator[Line]:
    """The lines of a file that stands at ``start``; they end with line feeds only."""
    position = start
    while raw := file.readline(MAX_LINE_BYTES):
        if len(raw) == MAX_LINE_BYTES:
            raise UsageError(
                f"line {position.lines + 1} is longer than {MAX_LINE_BYTES >> 20} MB: not JSON Lines or CSV"
            )
        position = Position(position.offset + len(raw), position.lines + 1)
        yield Line(raw, position)


def index_of(step: str) -> int | None:
    """The element of a list that a step of a path names, from 0; None if it names none."""
    return int(step) if step.isascii() and step.isdigit() and len(step) <= MAX_INDEX_DIGITS else None


def steps_to(row: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """The steps from a row to its text: the field's whole name, or the names and indexes between its dots.

    RowError if the row has neither; if it has both, because one of them would not be judged.
    """
    steps = tuple(field.split("."))
    is_path = len(steps) > 1 and _at(row, steps) is not _MISSING
    if field in row:
        if is_path:
            raise RowError(f"{field!r} appears 2 times: as a field and as a path")
        return (field,)
    if is_path:
        return steps
    raise RowError(f"no field {field!r}: name the text's field with --field")


def value_of(row: Mapping[str, Any], field: str) -> Any:
    """What is in a field or at a path; RowError if there is nothing."""
    return _at(row, steps_to(row, field))


def text_of(row: Mapping[str, Any], field: str) -> str:
    """The text in a field or at a path; RowError if there is none."""
    text = value_of(row, field)
    if not isinstance(text, str):
        raise RowError(f"field {field!r} must be a string, got {type(text).__name__}")
    return text


def require_free(row: Mapping[str, Any], field: str) -> None:
    """RowError if the row has a field of that name already."""
    if field in row:
        raise RowError(f"there is a field {field!r} already: choose another with --into")


def to_json(value: object) -> str:
    """JSON on one line, readable if it can be: escaped only if it holds half a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _at(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        index = index_of(step)
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and index is not None and index < len(value):
            value = value[index]
        else:
            return _MISSING
    return value
