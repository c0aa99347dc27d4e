"""Moderates what a runnable streams: text, message chunks, or anything else as a whole."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import partial, reduce
from typing import Any, TypeVar

from langchain_core.messages import BaseMessage, BaseMessageChunk
from langchain_core.messages.utils import message_chunk_to_message

from guardrail.engine.adapters import GuardAdapter, passed_on
from guardrail.integrations.langchain.chunks import (
    METADATA,
    Held,
    Metadata,
    Piece,
    StreamedProse,
    blank,
    filled,
    pieces_of,
)
from guardrail.outcome import Action
from guardrail.structured.shapes import decoded_json

__all__ = ["moderated"]

T = TypeVar("T")


async def moderated(
    chunks: AsyncIterator[Any], adapter: GuardAdapter, *, paths: Sequence[str]
) -> AsyncGenerator[Any, None]:
    """What may be shown of the chunks of one answer, of the kind that they are.

    Chunks of text and of messages are passed on as soon as they are judged. Anything else, and every answer
    with declared paths, is added up as LangChain adds it up and moderated as a whole. In monitor mode every
    chunk is passed on as it comes.
    """
    judged = partial(_judged, paths=paths)
    released = judged(chunks, adapter) if adapter.policy.enforce else passed_on(chunks, adapter, judged)
    async with aclosing(released) as shown:
        async for chunk in shown:
            yield chunk


async def _judged(
    chunks: AsyncIterator[Any], adapter: GuardAdapter, *, paths: Sequence[str]
) -> AsyncGenerator[Any, None]:
    first = await anext(chunks, None)
    if first is None:
        return
    everything = _rest(chunks, first)
    if isinstance(first, str) and not paths:
        async with aclosing(adapter.stream(everything)) as stream:
            async for text in stream:
                yield text
    elif isinstance(first, BaseMessageChunk) and not paths:
        async with aclosing(_MessageStream(everything, adapter).released()) as released:
            async for chunk in released:
                yield chunk
    else:
        whole = await _added_up(everything)
        yield await adapter.moderate(whole, paths=paths)


async def _rest(chunks: AsyncIterator[T], *first: T) -> AsyncGenerator[T, None]:
    for chunk in first:
        yield chunk
    async for chunk in chunks:
        yield chunk


async def _added_up(chunks: AsyncIterator[Any]) -> Any:
    whole = await anext(chunks)
    async for chunk in chunks:
        try:
            whole = whole + chunk
        except TypeError:  # as in Runnable.transform: later values replace earlier ones
            whole = chunk
    return message_chunk_to_message(whole) if isinstance(whole, BaseMessage) else whole


class _MessageStream:
    """The chunks of one message.

    Each block of prose is a stream of its own. Metadata goes out once and in order, never before the words
    that it came with or after. Calls of tools, other blocks and extras are held until the message is over
    and judged as a whole; then they go out as they came, or the refusal does. What is flagged of identity
    and metadata is taken out; the words continue without it, and the refusal stands behind them.
    """

    def __init__(self, chunks: AsyncIterator[BaseMessageChunk], adapter: GuardAdapter) -> None:
        self._chunks = chunks
        self._adapter = adapter
        self._pieces: deque[Piece] = deque()
        self._queue: deque[BaseMessageChunk | Held] = deque()
        self._beside: BaseMessageChunk | None = None
        self._bare: BaseMessageChunk | None = None
        self._judged: deque[tuple[BaseMessageChunk, BaseMessageChunk]] = deque(maxlen=2)
        self._said = False
        self._refused = False  # no words follow
        self._refusal_pending = (
            False  # the refusal is to be the last of the words, unless it stands among them
        )
        self._refusal_emitted = False
        self._last = False

    async def released(self) -> AsyncGenerator[BaseMessageChunk, None]:
        """The chunks to hand out."""
        while (piece := await self._next()) is not None:
            if isinstance(piece, StreamedProse) and not self._refused:
                self._pieces.appendleft(piece)
                async with aclosing(self._spoken(piece)) as spoken:
                    async for chunk in spoken:
                        yield chunk
                if self._beside is not None:
                    self._queue.appendleft(self._beside)
                    self._beside = None
            else:
                await self._note(piece)
            while self._queue and not isinstance(waiting := self._queue[0], Held):
                self._queue.popleft()
                yield waiting
        await self._judge_held()
        if self._refusal_pending and not self._refusal_emitted:
            yield self._refusal()
        for waiting in list(self._queue):
            yield waiting.chunk if isinstance(waiting, Held) else waiting
        if self._last and self._bare is not None:
            yield self._bare.model_copy(update={"chunk_position": "last"})

    async def _next(self) -> Piece | None:
        while not self._pieces:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return None
            if not isinstance(chunk, BaseMessageChunk):
                raise TypeError(f"expected chunks of a message, got {type(chunk).__name__}")
            self._last = self._last or getattr(chunk, "chunk_position", None) == "last"
            self._bare = await self._allowed(blank(chunk))
            self._pieces.extend(pieces_of(filled(self._bare, chunk)))
        return self._pieces.popleft()

    async def _allowed(self, chunk: BaseMessageChunk) -> BaseMessageChunk:
        """A chunk without words, and without what is flagged of it; what comes again is not judged again."""
        for came, allowed in self._judged:
            if came == chunk:
                return allowed
        allowed = await self._adapter.moderate(chunk)
        if allowed is not chunk:
            self._refusal_pending = True  # it stands in the content now, but words may come before it
            allowed = allowed.model_copy(update={"content": chunk.content})
        self._judged.append((chunk, allowed))
        return allowed

    async def _spoken(self, first: StreamedProse) -> AsyncGenerator[BaseMessageChunk, None]:
        """The block of prose that begins with these words."""
        texts = self._texts(first)
        lead = ""
        async for text in texts:
            lead += text
            if lead.strip():
                break
        if lead.lstrip()[:1] in ("{", "["):
            async for text in texts:
                lead += text
            if decoded_json(lead) is not None:
                whole = first.saying(lead)
                if await self._adapter.moderate(whole) is whole:
                    yield self._say(whole)
                else:
                    self._refused = self._refusal_pending = True
                return
        async with aclosing(self._adapter.stream(_rest(texts, lead))) as stream:
            async for text in stream:
                yield self._say(first.saying(text))
        if stream.outcome is not None and stream.outcome.action is Action.BLOCKED:
            self._refused = self._refusal_emitted = True

    async def _texts(self, first: StreamedProse) -> AsyncGenerator[str, None]:
        """The texts of one block, while other pieces are taken note of."""
        while not self._refused and (piece := await self._next()) is not None:
            if not isinstance(piece, StreamedProse):
                await self._note(piece)
            elif piece.key == first.key:
                yield piece.text
            else:
                self._pieces.appendleft(piece)
                return

    async def _note(self, piece: Piece) -> None:
        if isinstance(piece, Held):
            self._queue.append(piece)
        elif isinstance(piece, Metadata):
            chunk = await self._allowed(piece.chunk)
            if piece.shown and piece.beside:
                self._beside = chunk if self._beside is None else self._beside + chunk
            elif piece.shown:
                self._queue.append(chunk)

    def _say(self, chunk: BaseMessageChunk) -> BaseMessageChunk:
        """The chunk with the metadata that came with its words."""
        self._said = True
        beside, self._beside = self._beside, None
        if beside is None:
            return chunk
        return chunk.model_copy(
            update={name: getattr(beside, name) for name in METADATA if hasattr(beside, name)}
        )

    def _refusal(self) -> BaseMessageChunk:
        assert self._bare is not None
        refusal = self._adapter.policy.refusal
        if isinstance(self._bare.content, str):
            return self._bare.model_copy(update={"content": f"\n\n{refusal}" if self._said else refusal})
        return self._bare.model_copy(update={"content": [{"type": "text", "text": refusal}]})

    async def _judge_held(self) -> None:
        held = [waiting.chunk for waiting in self._queue if isinstance(waiting, Held)]
        if held and not (self._refused or self._refusal_pending):
            whole = _message_of(held)
            self._refusal_pending = await self._adapter.moderate(whole) is not whole
        if self._refused or self._refusal_pending:
            self._queue = deque(waiting for waiting in self._queue if not isinstance(waiting, Held))


def _message_of(chunks: Sequence[BaseMessageChunk]) -> BaseMessage:
    """One message of all chunks."""
    alike = [
        chunk.model_copy(update={"content": chunk.content if isinstance(chunk.content, list) else []})
        for chunk in chunks
    ]
    return message_chunk_to_message(reduce(operator.add, alike))
