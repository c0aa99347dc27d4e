"""Reads a value into a tree of its strings, and says of each whether it is prose."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

from guardrail.errors import UsageError
from guardrail.structured.identifiers import is_name, texts_of
from guardrail.structured.nodes import Branch, Dropped, Kind, Node, Passage, Text
from guardrail.structured.paths import ELEMENTS, Path
from guardrail.structured.records import CODE, elements_of, fields_of, is_scalar, keys_of, listed, shown_text
from guardrail.structured.shapes import decoded_json, kind_of, prose_field, spelled

__all__ = ["Reading", "read"]

MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found: the tree (None for a value without text) and the passages that its texts point at."""

    root: Node | None
    passages: tuple[Passage, ...]


def read(value: object, paths: Sequence[Path] = ()) -> Reading:
    """The strings of a value.

    Prose is: a str, the strings of a list or tuple, what stands at a declared path, and the content of
    messages, text blocks and choices, unless it is JSON. All other strings are to be detected only.

    Raises TypeError for a value that cannot be read through, UsageError for one that contains itself or is
    nested more than MAX_DEPTH deep, and for a path that leads nowhere or not to text.
    """
    reader = _Reader()
    try:
        root = _root(reader, value, paths)
    except _UnreadableError as error:
        raise TypeError(error.sentence()) from None
    for path in paths:
        if path not in reader.matched:
            raise UsageError(
                f"path {path.spelled!r} does not exist in a {type(value).__name__}; correct or remove it"
            )
    return Reading(root, tuple(reader.passages))


def _root(reader: _Reader, value: object, paths: Sequence[Path]) -> Node | None:
    if isinstance(value, str) and not paths:
        return reader.text(value, prose=True)
    if isinstance(value, (bytes, bytearray, memoryview, *CODE)):
        raise _UnreadableError(value)  # the answer itself, which is text, or makes it, as likely as not
    return reader.read(value, _At(tuple((path, path.steps) for path in paths), prose=True))


class _UnreadableError(Exception):
    """A part cannot be read; ``steps`` lead to it, the last one first."""

    def __init__(self, value: object) -> None:
        if inspect.iscoroutine(value):
            value.close()
        super().__init__()
        self.kind = type(value).__name__
        self.steps: list[str] = []

    def sentence(self) -> str:
        """What is wrong, where, and the way out."""
        path = "".join(reversed(self.steps)).lstrip(".")
        where = f" at {path}" if path else ""
        return (
            f"cannot read the text of a {self.kind}{where}; only str, list, tuple, set, dict, dataclasses, "
            "named tuples and pydantic models with numbers, dates, paths and the like in them can be "
            "moderated: return one of these, or leave out what is none"
        )


@dataclass(frozen=True, slots=True)
class _At:
    """Where the reader is: what is left of each declared path, and what is known of the place.

    ``prose`` a string found here is prose; ``answer`` the place is inside a message or choice.
    """

    paths: tuple[tuple[Path, tuple[str, ...]], ...] = ()
    prose: bool = False
    answer: bool = False

    def step(self, name: object, *, prose: bool, answer: bool) -> _At:
        """The place one step on."""
        paths = tuple((path, left[1:]) for path, left in self.paths if left and left[0] == name)
        return _At(paths, prose=prose, answer=answer)


class _Reader:
    def __init__(self) -> None:
        self.passages: list[Passage] = []
        self.matched: set[Path] = set()
        self._indices: dict[tuple[str, bool], int] = {}
        self._open: list[int] = []

    def read(self, value: Any, at: _At) -> Node | None:
        """The node of a value; None if it holds no text."""
        declared = self._arrive(value, at)
        if isinstance(value, Enum):
            return _branch(value, (), [self.read(value.value, _At())])
        if isinstance(value, str):
            return self.text(value, prose=True) if declared else self._string(value, prose=at.prose)
        if is_scalar(value):
            return None
        if (shown := shown_text(value)) is not None:
            return _branch(value, (), [self._string(shown, prose=False)]) if shown else None
        if (plain := listed(value)) is not None:
            return _branch(value, (), [self.read(plain, _At())])
        with self._inside(value):
            elements = elements_of(value)
            if elements is not None:
                return self._sequence(value, elements, at)
            fields = fields_of(value)
            if fields is not None:
                return self._record(value, fields, at)
        raise _UnreadableError(value)

    def _part(self, part: Any, at: _At, position: int, name: object = None, *, of: Any) -> Node | None:
        """The node of a part of a value, which is an element if it has no name."""
        try:
            return self.read(part, at)
        except _UnreadableError as error:
            if name is None:
                error.steps.append(f"[{position}]")
            elif name in keys_of(of):  # a key may be text, which an error must not show
                error.steps.append(f"[value {position + 1}]")
            else:
                error.steps.append(f".{name}")
            raise

    def text(self, value: str, *, prose: bool) -> Text:
        """The node of one string; equal strings share a passage."""
        plain = str(value)
        index = self._indices.setdefault((plain, prose), len(self.passages))
        if index == len(self.passages):
            self.passages.append(Passage(plain, prose))
        return Text(value, index, prose)

    def _string(self, value: str, *, prose: bool) -> Node | None:
        content = decoded_json(value)
        if content is None:
            return self.text(value, prose=True) if prose else self._read_only(value)
        # What a reader of the JSON gets to see is judged, not its escapes.
        return _branch(value, (), [self.read(content, _At())])

    def _read_only(self, value: str) -> Node | None:
        """A string that is not prose; of an id, a key or the like what a reader makes out in it."""
        found = texts_of(value)
        if found == (value,):
            return self.text(value, prose=False)
        return _branch(value, (), [self.text(text, prose=False) for text in found])

    def _sequence(self, value: Any, elements: Sequence[Any], at: _At) -> Branch | None:
        below = at.step(ELEMENTS, prose=at.prose, answer=at.answer)
        if not elements:
            self.matched.update(path for path, _ in below.paths)
        parts = [(i, self._part(part, below, i, of=value)) for i, part in enumerate(elements)]
        return _branch(value, parts, [self._read_only(text) for text in spelled(elements)])

    def _record(self, value: Any, fields: Mapping[Any, Any], at: _At) -> Branch | None:
        kind = kind_of(fields)
        prose = prose_field(kind, fields)
        answer = at.answer or kind in (Kind.MESSAGE, Kind.CHOICE)
        parts: list[tuple[Hashable, Node | None]] = []
        for position, (name, part) in enumerate(fields.items()):
            if answer and name == "logprobs" and part:
                # Tokens with their probabilities spell the text as it was, and others that were not chosen.
                parts.append((name, Dropped()))
            else:
                below = at.step(name, prose=name == prose, answer=answer)
                parts.append((name, self._part(part, below, position, name, of=value)))
        keys = [self.read(key, _At()) for key in keys_of(value) if not is_name(key)]
        return _branch(value, parts, keys, kind)

    def _arrive(self, value: object, at: _At) -> bool:
        """True if a declared path ends at this string."""
        for path, left in at.paths:
            if value is None:
                self.matched.add(path)
            elif not left:
                self.matched.add(path)
                if not isinstance(value, str) or isinstance(value, Enum):
                    raise UsageError(
                        f"path {path.spelled!r} leads to a {type(value).__name__}; let it end at a str"
                    )
        return isinstance(value, str) and any(not left for _, left in at.paths)

    @contextmanager
    def _inside(self, value: object) -> Iterator[None]:
        if id(value) in self._open:
            raise UsageError(f"a {type(value).__name__} contains itself; return a value without cycles")
        if len(self._open) == MAX_DEPTH:
            raise UsageError(f"a value is nested more than {MAX_DEPTH} deep; return a flatter one")
        self._open.append(id(value))
        try:
            yield
        finally:
            self._open.pop()


def _branch(
    value: Any,
    parts: Sequence[tuple[Hashable, Node | None]],
    keys: Sequence[Node | None] = (),
    kind: Kind = Kind.PLAIN,
) -> Branch | None:
    held = tuple((slot, node) for slot, node in parts if node is not None)
    read_only = tuple(key for key in keys if key is not None)
    return Branch(value, held, read_only, kind) if held or read_only else None
