"""What a flow may ask of its driver. Each request names the reply that it is sent."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

from guardrail.outcome import Edit, Outcome, Span

__all__ = [
    "PAUSE",
    "Ask",
    "Detect",
    "Embed",
    "Flow",
    "ModelCall",
    "Pause",
    "Read",
    "Release",
    "Request",
    "Rewrite",
    "Steps",
    "UnfinishedError",
    "Verify",
]


class Pause(Enum):
    """A reply to Read in place of a chunk: what was read so far is judged and released before the next Read.

    The text continues after it, and what follows is judged with what came before, as after any other segment.
    """

    PAUSE = "pause"


PAUSE: Final = Pause.PAUSE


@dataclass(frozen=True, slots=True)
class Read:
    """The next chunk is wanted. Reply: str, ``PAUSE``, or None at the end of the text."""


@dataclass(frozen=True, slots=True)
class Detect:
    """Verdicts are wanted, from the classifier or from the word list. Reply: list[Verdict], same length."""

    texts: tuple[str, ...] = field(repr=False)
    lexicon: bool = False


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Candidates are wanted. Reply: list[list[str]], one list of up to ``n`` per segment.

    ``spans`` are the toxic characters of each text, none for a text that is hostile as a whole.
    """

    texts: tuple[str, ...] = field(repr=False)
    n: int
    spans: tuple[tuple[Span, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Embed:
    """Embeddings are wanted. Reply: array (len(texts), d), rows of unit length."""

    texts: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verify:
    """How acceptable candidates are as rewrites of ``sources``. Reply: list[float], same length, 0..1."""

    texts: tuple[str, ...] = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Release:
    """This text may be shown now; ``edit`` is what stands in it for a flagged segment. Reply: None, once it
    was handed out: only then it is part of the outcome.
    """

    text: str = field(repr=False)
    edit: Edit | None = None


class UnfinishedError(Exception):
    """Thrown into a flow in place of a reply: the text ends here, before its end.

    The flow drops what it has not released and returns its outcome.
    """


ModelCall = Detect | Rewrite | Embed | Verify
Request = Read | ModelCall | Release
Ask = Callable[[ModelCall], Any]
"""Gives the reply to a model call; a PluginError in its place if the plug-in failed or is late."""
T = TypeVar("T")
Steps = Generator[Request, Any, T]
"""A part of a flow that ends with a T."""
Flow = Generator[Request, Any, Outcome]
