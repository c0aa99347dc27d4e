"""Takes message chunks apart: text, metadata, and what can only be judged once it is complete."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import BaseMessageChunk

from guardrail.structured.nodes import Kind
from guardrail.structured.shapes import prose_field

__all__ = ["METADATA", "Held", "Metadata", "Piece", "StreamedProse", "blank", "filled", "pieces_of"]

Block = str | dict[Any, Any]
EMPTY: dict[str, Any] = {
    "response_metadata": {},
    "additional_kwargs": {},
    "usage_metadata": None,
    "tool_calls": [],
    "invalid_tool_calls": [],
    "tool_call_chunks": [],
    "chunk_position": None,
}
"""Fields of chunks besides content and identity, with nothing in them."""
METADATA = ("response_metadata", "usage_metadata")
"""Fields of chunks that go out with the words they came with."""
HELD = ("additional_kwargs", "tool_calls", "invalid_tool_calls", "tool_call_chunks")


@dataclass(frozen=True, slots=True)
class StreamedProse:
    """Prose that continues as a stream.

    ``key`` tells blocks apart. ``chunk`` is what the words came in, emptied; ``block`` and ``slot`` are the
    block's identity and the name of its prose, None if the content is a str.
    """

    text: str = field(repr=False)
    key: Hashable
    chunk: BaseMessageChunk = field(repr=False)
    block: dict[str, Any] | None = field(repr=False, default=None)
    slot: str | None = None

    def saying(self, text: str) -> BaseMessageChunk:
        """A chunk with this text in the place of the words."""
        content = text if self.slot is None else [{**(self.block or {}), self.slot: text}]
        return self.chunk.model_copy(update={"content": content})


@dataclass(frozen=True, slots=True)
class Metadata:
    """Identity, usage and metadata, which go out once.

    ``beside`` is true if they came with words, ``shown`` is false if there is nothing but identity.
    """

    chunk: BaseMessageChunk = field(repr=False)
    beside: bool
    shown: bool


@dataclass(frozen=True, slots=True)
class Held:
    """Calls of tools, other blocks and extras: they arrive in fragments that mean nothing alone."""

    chunk: BaseMessageChunk = field(repr=False)


Piece = StreamedProse | Metadata | Held


def blank(chunk: BaseMessageChunk) -> BaseMessageChunk:
    """The chunk with its identity only."""
    empty = {name: value for name, value in EMPTY.items() if hasattr(chunk, name)}
    return chunk.model_copy(update={"content": "" if isinstance(chunk.content, str) else [], **empty})


def filled(bare: BaseMessageChunk, chunk: BaseMessageChunk) -> BaseMessageChunk:
    """What a chunk brings, under the identity of another one."""
    brought = {name: getattr(chunk, name) for name in ("content", *EMPTY) if hasattr(chunk, name)}
    return bare.model_copy(update=brought)


def pieces_of(chunk: BaseMessageChunk) -> Iterator[Piece]:
    """What a chunk brings, metadata first."""
    bare = blank(chunk)
    content = list(_content(chunk, bare))
    metadata = {name: getattr(chunk, name) for name in METADATA if getattr(chunk, name, None)}
    held = {name: getattr(chunk, name) for name in HELD if getattr(chunk, name, None)}
    beside = any(isinstance(part, StreamedProse) for part in content)
    shown = bool(metadata) or not (content or held)
    yield Metadata(bare.model_copy(update=metadata), beside=beside, shown=shown)
    yield from content
    if held:
        yield Held(bare.model_copy(update=held))


def _content(chunk: BaseMessageChunk, bare: BaseMessageChunk) -> Iterator[StreamedProse | Held]:
    if isinstance(chunk.content, str):
        if chunk.content:
            yield StreamedProse(chunk.content, "", bare)
        return
    for position, block in enumerate(chunk.content):
        yield from _block(block, position, bare)


def _block(block: Block, position: int, bare: BaseMessageChunk) -> Iterator[StreamedProse | Held]:
    if isinstance(block, str):
        yield StreamedProse(block, "", bare.model_copy(update={"content": ""}))
        return
    name = prose_field(Kind.BLOCK, block)
    if name is None:
        yield Held(bare.model_copy(update={"content": [block]}))
        return
    identity = {key: block[key] for key in ("type", "index", "id") if key in block}
    yield StreamedProse(block[name], (block["type"], block.get("index", position)), bare, identity, name)
    if len(block) > len(identity) + 1:  # annotations and the like
        yield Held(bare.model_copy(update={"content": [{**block, name: ""}]}))
