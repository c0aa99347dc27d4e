"""A streamed answer from upstream to client: events in, moderated events out, one writer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import anyio

from guardrail.errors import FailureError
from guardrail.integrations.openai_server.answers import ENVELOPE, Terms, envelope, index_of
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.replies import ApiError, unable
from guardrail.integrations.openai_server.sse import DONE, EventReader, event
from guardrail.integrations.openai_server.streamed import StreamedChoice
from guardrail.integrations.openai_server.upstream import Answer, Upstream, malformed
from guardrail.integrations.openai_server.wire import JsonObject, MalformedError, numbers, parse

__all__ = ["Relay"]

EVENT_BYTES = 1 << 20
END = "[DONE]"


class Relay:
    """Passes one streamed answer on.

    ``write`` gets the bytes of one event at a time. ``wanted`` is the number of choices after whose blocking
    the rest of the answer is of no use; None reads it to its end, for the usage report in it.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        terms: Terms,
        moderator: Moderator,
        upstream: Upstream,
        wanted: int | None,
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._answer = answer
        self._terms = terms
        self._moderator = moderator
        self._upstream = upstream
        self._wanted = wanted
        self._write = write
        self._turn = anyio.Lock()
        self._tasks = anyio.create_task_group()
        self._choices: dict[int, StreamedChoice] = {}
        self._envelope: JsonObject = {}
        self._usage: JsonObject | None = None
        self._failure: ApiError | None = None

    async def run(self) -> None:
        """Writes the whole answer; ApiError where it breaks off, with what was written standing.

        What the guard had not released by then is dropped.
        """
        try:
            async with self._tasks:
                await self._read_on()
        finally:
            for choice in self._choices.values():
                choice.close()
        if self._failure is not None:
            raise self._failure
        if self._usage is not None:
            await self._write(event(self._envelope | {"choices": [], "usage": self._usage}))
        await self._write(DONE)

    async def emit(
        self, index: int, fields: JsonObject, *, reason: str | None = None, usage: JsonObject | None = None
    ) -> None:
        """Writes one chunk of one choice."""
        inner = {self._terms.kind.delta: fields} if self._terms.kind.delta else {"text": ""} | fields
        choice = {"index": index, **inner, "finish_reason": reason, "logprobs": None}
        payload = self._envelope | {"choices": [choice]} | ({} if usage is None else {"usage": usage})
        async with self._turn:
            await self._write(event(payload))

    def fail(self, error: FailureError) -> None:
        """Ends the answer, because the guard cannot work."""
        self._stop(unable(error))

    def _stop(self, error: ApiError) -> None:
        self._failure = self._failure or error
        self._tasks.cancel_scope.cancel()

    async def _read_on(self) -> None:
        try:
            await self._read()
        except ApiError as error:
            self._stop(error)  # raised behind the tasks, which would wrap it
        except FailureError as error:
            self.fail(error)

    async def _read(self) -> None:
        reader = EventReader(limit=EVENT_BYTES)
        try:
            async for chunk in self._answer.chunks():
                for payload in reader.feed(chunk):
                    if await self._is_last(payload):
                        return
            for payload in reader.close():
                if await self._is_last(payload):
                    return
        except MalformedError as error:
            raise malformed(error) from None
        if not self._choices or not all(c.finished or c.blocked for c in self._choices.values()):
            raise ApiError(
                "the upstream ended its answer in the middle",
                status=502,
                kind="upstream_error",
                code="upstream_disconnected",
            )

    async def _is_last(self, payload: str) -> bool:
        """Takes up one event; true where no other is wanted."""
        if payload.strip() == END:
            for choice in self._choices.values():
                choice.finish()
            return True
        if payload.strip():
            await self._take(parse(payload))
        blocked = sum(choice.blocked for choice in self._choices.values())
        return self._wanted is not None and blocked >= self._wanted

    async def _take(self, chunk: JsonObject) -> None:
        if chunk.get("error"):
            raise await self._upstream.told(chunk["error"], status=502)
        choices = self._terms.kind.choices(chunk)
        if not self._envelope:
            clean = await self._moderator.identifiers([*map(chunk.get, ENVELOPE)])
            self._envelope = envelope(chunk, terms=self._terms, streamed=True, clean=clean)
        usage = await self._usage_in(chunk)
        for part in choices:
            choice = self._choice(index_of(part))
            if choice.blocked:
                self._usage = usage or self._usage  # its own end was told before
            await choice.feed(part, usage=usage)
        if not choices:
            self._usage = usage or self._usage

    async def _usage_in(self, chunk: JsonObject) -> JsonObject | None:
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return None
        return cast("JsonObject", numbers(usage, clean=await self._moderator.identifiers(usage)))

    def _choice(self, index: int) -> StreamedChoice:
        if index not in self._choices:
            self._choices[index] = StreamedChoice(
                index,
                terms=self._terms,
                moderator=self._moderator,
                outlet=self,
                tasks=self._tasks,
            )
        return self._choices[index]
