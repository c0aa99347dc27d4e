"""Records of a bulk file: their bytes, where they end, and the text in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, runtime_checkable

from guardrail.errors import UsageError
from guardrail.outcome import Outcome, Span
from guardrail.outcome.rows import verdict_row

__all__ = ["Assembled", "Format", "Line", "Position", "Record", "lines_from", "outcome_fields"]

NOWHERE = Span(0, 0)
LONGEST_LINE = 1 << 26
"""Bytes; a file with a longer line is refused, so that no input can fill the memory."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two records: bytes and lines before it; in a table, ``offset`` counts rows too."""

    offset: int = 0
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One line with its line feed, and the position behind it."""

    raw: bytes = field(repr=False)
    end: Position


@dataclass(frozen=True, slots=True)
class Record:
    """One record. ``text`` is None where there is nothing to judge: a blank line, or a row with an ``error``.

    ``number`` is the line it begins on, or the row of a table, from 1. ``raw`` is the record as it was; of a
    table's row the text alone, or all of it as JSON if it has an error. ``cell`` is where the text stands in
    the decoded ``raw``.
    """

    number: int
    raw: bytes = field(repr=False)
    end: Position
    text: str | None = field(default=None, repr=False)
    error: str | None = None
    cell: Span = NOWHERE


class Format(Protocol):
    """A kind of file, opened: reads its records, and writes them with what became of their text."""

    settings: dict[str, Any]
    """What decides how the file is read and written, for comparison with an interrupted job."""
    head: bytes
    """What stands before the first record of the output."""
    start: Position
    """Where the first record begins."""

    def records(self, file: BinaryIO, start: Position) -> Iterator[Record]:
        """The records from ``start`` on, where the file stands; at the first one, as opening it left it."""
        ...

    def written(self, record: Record, outcome: Outcome) -> bytes:
        """The record with the outcome's text in its place; as it was where nothing changed."""
        ...


@runtime_checkable
class Assembled(Format, Protocol):
    """A kind of file that cannot be written before all is judged; what is ``written`` is kept apart."""

    def assemble(self, rows: BinaryIO, target: BinaryIO) -> None:
        """Makes the whole output of what was written."""
        ...


def lines_from(file: BinaryIO, start: Position) -> Iterator[Line]:
    """The lines of a file that stands at ``start``; they end with line feeds only."""
    position = start
    while raw := file.readline(LONGEST_LINE):
        if len(raw) == LONGEST_LINE:
            raise UsageError(
                f"line {position.lines + 1} is longer than {LONGEST_LINE >> 20} MB: not JSON Lines or CSV"
            )
        position = Position(position.offset + len(raw), position.lines + 1)
        yield Line(raw, position)


def outcome_fields(outcome: Outcome) -> dict[str, Any]:
    """What of an outcome goes beside its text: the action, why it is degraded, the original's scores."""
    return {
        "action": str(outcome.action),
        "degraded": list(outcome.degraded),
        "scores": verdict_row(outcome.verdict)["scores"],
    }
