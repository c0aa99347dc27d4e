"""A reading of a text in which every character knows where in the text it came from, and edits of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guardrail.outcome import Span

__all__ = ["CharacterChange", "Normalised", "as_it_stands", "changed", "within"]


@dataclass(frozen=True, slots=True, eq=False)
class Normalised:
    """A reading of a text: character ``i`` of it stands for ``starts[i]`` to ``ends[i]`` of the original."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def original(self, start: int, end: int) -> Span:
        """The characters of the original behind a non-empty slice of ``text``."""
        return Span(min(self.starts[start:end]), max(self.ends[start:end]))


@dataclass(frozen=True, slots=True)
class CharacterChange:
    """What takes the place of ``start`` to ``end``: each of its characters stands for all of them.

    With ``backwards`` it has as many characters, and the last one stands for the first one replaced.
    """

    start: int
    end: int
    text: str
    backwards: bool = False


def as_it_stands(text: str) -> Normalised:
    """The text itself as its own reading."""
    return Normalised(text, range(len(text)), range(1, len(text) + 1))


def changed(reading: Normalised, changes: Iterable[CharacterChange]) -> Normalised:
    """The reading with changes made, which must be in order and apart."""
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    done = 0
    for change in changes:
        pieces += (reading.text[done : change.start], change.text)
        starts += reading.starts[done : change.start]
        ends += reading.ends[done : change.start]
        if change.backwards:
            starts += reversed(reading.starts[change.start : change.end])
            ends += reversed(reading.ends[change.start : change.end])
        else:
            whole = reading.original(change.start, change.end)
            starts += [whole.start] * len(change.text)
            ends += [whole.end] * len(change.text)
        done = change.end
    if not done:
        return reading
    pieces.append(reading.text[done:])
    starts += reading.starts[done:]
    ends += reading.ends[done:]
    return Normalised("".join(pieces), starts, ends)


def within(outer: Normalised, inner: Normalised) -> Normalised:
    """A reading of ``outer.text`` as a reading of what ``outer`` reads."""
    if isinstance(outer.starts, range):
        return inner
    starts = [outer.starts[start] for start in inner.starts]
    ends = [outer.ends[end - 1] for end in inner.ends]
    return Normalised(inner.text, starts, ends)
