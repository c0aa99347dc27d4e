"""A streamed answer from upstream to client: events in, moderated events out, one writer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import anyio

from guardrail.errors import FailureError
from guardrail.integrations.openai_server.answers import ENVELOPE, Terms, envelope
from guardrail.integrations.openai_server.connected import late
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.refusals import error_beside
from guardrail.integrations.openai_server.replies import ApiError, unable
from guardrail.integrations.openai_server.sse import DONE, EventReader, event
from guardrail.integrations.openai_server.streamed import StreamedChoice
from guardrail.integrations.openai_server.upstream import Answer, Upstream, malformed
from guardrail.integrations.openai_server.wire import JsonObject, MalformedError, loads, numbers

__all__ = ["Relay"]

END = "[DONE]"


class Relay:
    """Passes one streamed answer on.

    ``write`` gets the bytes of one event at a time. ``wanted`` is the number of choices after whose blocking
    the rest of the answer is of no use; None reads it to its end, for the usage report in it. The
    upstream may take until ``over``, a time of anyio's clock.
    """

    def __init__(
        self,
        answer: Answer,
        *,
        terms: Terms,
        moderator: Moderator,
        upstream: Upstream,
        wanted: int | None,
        over: float,
        write: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._answer = answer
        self._terms = terms
        self._moderator = moderator
        self._upstream = upstream
        self._wanted = wanted
        self._over = over
        self._write = write
        self._turn = anyio.Lock()
        self._tasks = anyio.create_task_group()
        self._choices: dict[int, StreamedChoice] = {}
        self._envelope: JsonObject = {}
        self._usage: JsonObject | None = None
        self._unread: MalformedError | None = None
        self._failure: ApiError | None = None

    async def run(self) -> None:
        """Writes the whole answer; ApiError where it breaks off, behind what is clean of the text so far."""
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
            with anyio.CancelScope(deadline=self._over) as reading:
                await self._read()
            if reading.cancelled_caught:
                self._failure = late()
        except ApiError as error:
            self._failure = error  # raised behind the tasks, which would wrap it
        except FailureError as error:
            self.fail(error)
        for choice in self._choices.values():
            choice.finish() if self._failure is None else choice.break_off()

    async def _read(self) -> None:
        reader = EventReader(limit=self._answer.limit)
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
        if not self._choices or not all(choice.is_over for choice in self._choices.values()):
            raise ApiError(
                "the upstream ended its answer in the middle",
                status=502,
                kind="upstream_error",
                code="upstream_disconnected",
            )

    async def _is_last(self, payload: str) -> bool:
        """Takes up one event; true where no other is wanted."""
        payload = payload.strip()
        if payload.strip('"').upper() == END:
            if self._unread is not None and not self._choices:
                raise self._unread  # an answer of which nothing was understood is not an empty one
            return True
        if payload:
            await self._take(loads(payload))
        blocked = sum(choice.blocked for choice in self._choices.values())
        return self._wanted is not None and self._wanted <= blocked == len(self._choices)

    async def _take(self, chunk: object) -> None:
        if chunk is None or isinstance(chunk, (bool, int, float)):
            return  # holds no text
        if not isinstance(chunk, dict):
            raise MalformedError("not a JSON object")
        error = error_beside(chunk)
        usage = await self._usage_in(chunk)
        if chunk.get("choices"):
            await self._take_choices(chunk, usage)
        elif usage is not None:
            self._usage = usage
            await self._surround(chunk)
        elif chunk:
            self._unread = MalformedError("no list of choices")
        if error is not None:
            raise await self._upstream.told(error, status=502)

    async def _take_choices(self, chunk: JsonObject, usage: JsonObject | None) -> None:
        """Feeds every choice that can be read, and raises MalformedError behind them where one cannot."""
        problem: MalformedError | None = None
        try:
            for index, part in self._terms.kind.choices(chunk):
                await self._surround(chunk)
                try:
                    await self._feed(index, part, usage)
                except MalformedError as error:
                    problem = problem or error
        except MalformedError as error:
            problem = problem or error
        if problem is not None:
            raise problem

    async def _feed(self, index: int, part: JsonObject, usage: JsonObject | None) -> None:
        choice = self._choice(index)
        if choice.blocked:
            self._usage = usage or self._usage  # its own end was told before
        await choice.feed(part, usage=usage)

    async def _surround(self, chunk: JsonObject) -> None:
        """Takes what surrounds all choices from the first chunk that has some."""
        if not self._envelope:
            clean = await self._moderator.identifiers([*map(chunk.get, ENVELOPE)])
            self._envelope = envelope(chunk, terms=self._terms, streamed=True, clean=clean)

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
