"""The strings of a value as a tree: where each one is, and what it is part of."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["Branch", "Dropped", "Kind", "Node", "Passage", "Text", "texts_in"]


@dataclass(frozen=True, slots=True)
class Passage:
    """One string to judge. Prose may be rewritten, the rest is passed or blocked."""

    text: str = field(repr=False)
    prose: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A string at its place; ``index`` is the position of its passage, which equal strings share."""

    value: str = field(repr=False)
    index: int
    prose: bool


@dataclass(frozen=True, slots=True)
class Dropped:
    """A part that never goes out: it would spell the unmoderated text."""


class Kind(Enum):
    """Which known shape a branch has."""

    PLAIN = "plain"
    BLOCK = "block"
    MESSAGE = "message"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Branch:
    """A value with parts. ``parts`` are those that hold text, by position or name, in the value's order.

    ``read_only`` is text that cannot be replaced in its place: the keys of a dict, the strings inside JSON.
    """

    value: Any = field(repr=False)
    parts: tuple[tuple[Hashable, Node], ...]
    read_only: tuple[Node, ...] = ()
    kind: Kind = Kind.PLAIN


Node = Text | Branch | Dropped


def texts_in(node: Node) -> Iterator[Text]:
    """Every string under a node."""
    if isinstance(node, Text):
        yield node
    elif isinstance(node, Branch):
        for part in (*node.read_only, *(part for _, part in node.parts)):
            yield from texts_in(part)
