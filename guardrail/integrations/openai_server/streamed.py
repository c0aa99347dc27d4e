"""One choice of a streamed answer: text through guard streams, calls of tools held until they are whole."""

from __future__ import annotations

from typing import Protocol

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from guardrail.errors import FailureError
from guardrail.integrations.openai_server.answers import (
    BLOCKED,
    CHAT,
    DOCUMENT,
    Calls,
    Terms,
    finish_reason,
    object_of,
    plain,
    string_of,
)
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.wire import JsonObject, strings_of
from guardrail.outcome import Action

__all__ = ["Outlet", "StreamedChoice"]

WAITING = 64
"""Pieces of text that may wait for the guard; then the upstream is not read until it has caught up."""


class Outlet(Protocol):
    """Where a choice puts what may be seen."""

    async def emit(
        self, index: int, fields: JsonObject, *, reason: str | None = None, usage: JsonObject | None = None
    ) -> None:
        """Writes one chunk."""
        ...

    def fail(self, error: FailureError) -> None:
        """Ends the whole answer, because the guard cannot work."""
        ...


class StreamedChoice:
    """Takes up the deltas of one choice and emits what was moderated, as soon as it was.

    Each field of text has a guard stream of its own. The choice ends when all of them have been drained and
    its calls were judged, or as soon as a segment is blocked; nothing is emitted after that.
    """

    def __init__(
        self,
        index: int,
        *,
        terms: Terms,
        moderator: Moderator,
        outlet: Outlet,
        tasks: TaskGroup,
    ) -> None:
        self.finished = False
        self.blocked = False
        self._index = index
        self._terms = terms
        self._moderator = moderator
        self._outlet = outlet
        self._tasks = tasks
        self._inlets: dict[str, MemoryObjectSendStream[str]] = {}
        self._sources: list[MemoryObjectReceiveStream[str]] = []
        self._running = 0
        self._calls = Calls()
        self._document = ""
        self._introduced = terms.kind is not CHAT
        self._reason: str | None = None
        self._usage: JsonObject | None = None

    async def feed(self, choice: JsonObject, *, usage: JsonObject | None) -> None:
        """Takes up one delta, or drops it behind the end. MalformedError where it has another shape."""
        if self.finished or self.blocked:
            return
        source = object_of(choice, self._terms.kind.delta)
        if not self._introduced:
            self._introduced = True
            await self._outlet.emit(self._index, {"role": "assistant", "content": ""})
        await self._take_prose(source)
        if self._terms.document:
            self._document += string_of(source, DOCUMENT)
        self._calls.collect(source, streamed=True)
        if choice.get("finish_reason") is not None:
            self._usage = usage
            self.finish(finish_reason(choice["finish_reason"]))

    def finish(self, reason: str | None = None) -> None:
        """No more deltas will come. Without a reason, as of a careless upstream, none is told."""
        if self.finished or self.blocked:
            return
        self.finished = True
        self._reason = reason
        self._end_inlets()
        if not self._running:
            self._tasks.start_soon(self._settle)

    def close(self) -> None:
        """Drops what still waits for the guard, however the answer ended."""
        self._end_inlets()
        for source in self._sources:
            source.close()

    async def _take_prose(self, source: JsonObject) -> None:
        for name in self._terms.prose:
            value = source.get(name)
            if name in self._terms.allowed and not isinstance(value, str):
                if plain(value):
                    await self._outlet.emit(self._index, {name: value})
            elif text := string_of(source, name):
                await self._pour(name, text)

    async def _pour(self, name: str, text: str) -> None:
        if name not in self._inlets:
            self._inlets[name], source = anyio.create_memory_object_stream[str](WAITING)
            self._sources.append(source)
            self._running += 1
            self._tasks.start_soon(self._moderate, name, source)
        try:
            await self._inlets[name].send(text)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            if not self.blocked:
                raise

    async def _moderate(self, name: str, source: MemoryObjectReceiveStream[str]) -> None:
        """Emits one field's text as the guard releases it."""
        try:
            async with source, self._moderator.stream(source) as stream:
                async for piece in stream:
                    if self.blocked:
                        return
                    await self._outlet.emit(self._index, {name: piece})
        except FailureError as error:
            self._outlet.fail(error)
            return
        self._running -= 1
        if self._moderator.settled(stream.outcome) is Action.BLOCKED:
            await self._block()
        elif self.finished and not self._running:
            await self._settle()

    async def _settle(self) -> None:
        """Emits what was held back, if it is clean, and the end."""
        if self.blocked:
            return
        try:
            held = await self._held()
        except FailureError as error:
            self._outlet.fail(error)
            return
        await self._release(held)

    async def _release(self, held: list[JsonObject]) -> None:
        for fields in held:
            await self._outlet.emit(self._index, fields)
        if self.blocked:
            await self._outlet.emit(self._index, {}, reason=BLOCKED, usage=self._usage)
        elif self._reason is not None:
            await self._outlet.emit(self._index, {}, reason=self._reason, usage=self._usage)

    async def _held(self) -> list[JsonObject]:
        """The deltas of the document and the calls, as far as they are clean."""
        held: list[JsonObject] = []
        if self._document:
            self.blocked = not await self._moderator.is_clean(strings_of(self._document))
            held.append({DOCUMENT: self._moderator.refusal if self.blocked else self._document})
        if not self.blocked:
            self.blocked = not await self._moderator.allows(self._calls)
        calls = self._calls.fields(streamed=True)
        return held if self.blocked or not calls else [*held, calls]

    async def _block(self) -> None:
        if not self.blocked:
            self.blocked = True
            self._end_inlets()
            await self._outlet.emit(self._index, {}, reason=BLOCKED, usage=self._usage)

    def _end_inlets(self) -> None:
        for inlet in self._inlets.values():
            inlet.close()
