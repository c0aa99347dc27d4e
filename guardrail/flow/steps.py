"""What a flow may ask of its driver. Each request names the reply that it is sent."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from guardrail.outcome import Edit, Outcome

__all__ = [
    "Detect",
    "Embed",
    "Flow",
    "ModelCall",
    "Read",
    "Release",
    "Request",
    "Rewrite",
    "Steps",
    "UnfinishedError",
]


@dataclass(frozen=True, slots=True)
class Read:
    """The next chunk is wanted. Reply: str, or None at the end of the text."""


@dataclass(frozen=True, slots=True)
class Detect:
    """Verdicts are wanted, from the classifier or from the word list. Reply: list[Verdict], same length."""

    texts: tuple[str, ...] = field(repr=False)
    lexicon: bool = False


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Candidates are wanted. Reply: list[list[str]], one list of up to ``n`` per segment."""

    texts: tuple[str, ...] = field(repr=False)
    n: int


@dataclass(frozen=True, slots=True)
class Embed:
    """Embeddings are wanted. Reply: array (len(texts), d), rows of unit length."""

    texts: tuple[str, ...] = field(repr=False)


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


ModelCall = Detect | Rewrite | Embed
Request = Read | ModelCall | Release
T = TypeVar("T")
Steps = Generator[Request, Any, T]
"""A part of a flow that ends with a T."""
Flow = Generator[Request, Any, Outcome]
