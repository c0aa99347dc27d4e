"""Streamed completions: chunks of all choices in, moderated chunks out.

It knows chunks as JSON objects and nothing of servers or clients: ``CompletionStream.run`` reads chunks from
any asynchronous iterable and writes moderated ones to any coroutine function.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Awaitable, Callable

import anyio

from guardrail.errors import FailureError
from guardrail.integrations.completions.choice_stream import ChoiceStream
from guardrail.integrations.completions.completion import (
    ENVELOPE,
    AnswerShape,
    envelope,
    error_in,
    holds_no_text,
)
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.report import current_report
from guardrail.integrations.completions.sanitize import only_numbers
from guardrail.integrations.strict_json import JsonObject, MalformedError

__all__ = ["AnsweredError", "CompletionStream"]


class AnsweredError(Exception):
    """A chunk brought an error; ``error`` is what stood there, unread."""

    def __init__(self, error: object) -> None:
        super().__init__("the stream holds an error")
        self.error = error


class CompletionStream:
    """One streamed completion: chunks in, moderated chunks out.

    ``write`` gets one chunk at a time. ``choices_wanted`` is the number of choices after whose blocking the
    rest is of no use; None reads to the end, for the usage report in it.
    """

    def __init__(
        self,
        *,
        shape: AnswerShape,
        moderator: Moderator,
        write: Callable[[JsonObject], Awaitable[None]],
        choices_wanted: int | None = None,
    ) -> None:
        self._shape = shape
        self._moderator = moderator
        self._write = write
        self._choices_wanted = choices_wanted
        self._turn = anyio.Lock()
        self._tasks = anyio.create_task_group()
        self._choices: dict[int, ChoiceStream] = {}
        self._envelope: JsonObject = {}
        self._usage: JsonObject | None = None
        self._unread: MalformedError | None = None
        self._error: Exception | None = None

    @property
    def is_over(self) -> bool:
        """True once every choice was said to be over, or may not be shown any further."""
        return bool(self._choices) and all(choice.is_over for choice in self._choices.values())

    async def run(self, chunks: AsyncIterable[object], *, deadline: float = math.inf) -> None:
        """Reads the chunks and writes what may be shown of them.

        Whatever ends the reading early is raised behind the text that is clean so far: what the chunks
        raised, MalformedError for a chunk that cannot be read, AnsweredError for one that holds an error,
        TimeoutError at the ``deadline``, a time of anyio's clock. FailureError: the guard cannot work.
        """
        try:
            async with self._tasks:
                await self._read_until(deadline, chunks)
        finally:
            for choice in self._choices.values():
                choice.close()
        if self._error is not None:
            raise self._error
        last = {"usage": self._usage, "guardrail": current_report()}
        if found := {name: value for name, value in last.items() if value is not None}:
            await self._write(self._envelope | {"choices": []} | found)

    async def emit(
        self, index: int, fields: JsonObject, *, reason: str | None = None, usage: JsonObject | None = None
    ) -> None:
        """Writes one chunk of one choice."""
        inner = {self._shape.kind.delta: fields} if self._shape.kind.delta else {"text": ""} | fields
        choice = {"index": index, **inner, "finish_reason": reason, "logprobs": None}
        chunk = self._envelope | {"choices": [choice]} | ({} if usage is None else {"usage": usage})
        async with self._turn:
            await self._write(chunk)

    def fail(self, error: FailureError) -> None:
        """Ends the whole answer, because the guard cannot work."""
        self._error = self._error or error
        self._tasks.cancel_scope.cancel()

    async def _read_until(self, deadline: float, chunks: AsyncIterable[object]) -> None:
        try:
            with anyio.CancelScope(deadline=deadline) as reading:
                await self._read(chunks)
            if reading.cancelled_caught:
                self._error = TimeoutError()
        except FailureError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001  # raised behind the tasks, which would wrap it
            self._error = error
        for choice in self._choices.values():
            choice.finish() if self._error is None else choice.break_off()

    async def _read(self, chunks: AsyncIterable[object]) -> None:
        async for chunk in chunks:
            await self._take(chunk)
            blocked = sum(choice.blocked for choice in self._choices.values())
            if self._choices_wanted is not None and self._choices_wanted <= blocked == len(self._choices):
                return
        if self._unread is not None and not self._choices:
            raise self._unread  # an answer of which nothing was understood is not an empty one

    async def _take(self, chunk: object) -> None:
        if chunk is None or holds_no_text(chunk):
            return
        if not isinstance(chunk, dict):
            raise MalformedError("not a JSON object")
        error = error_in(chunk)
        usage = await self._usage_in(chunk)
        if chunk.get("choices"):
            await self._take_choices(chunk, usage)
        elif usage is not None:
            self._usage = usage
            await self._take_envelope(chunk)
        elif chunk:
            self._unread = MalformedError("no list of choices")
        if error is not None:
            raise AnsweredError(error)

    async def _take_choices(self, chunk: JsonObject, usage: JsonObject | None) -> None:
        """Feeds every choice that can be read, and raises MalformedError behind them if one cannot."""
        problem: MalformedError | None = None
        try:
            for index, part in self._shape.kind.choices(chunk):
                await self._take_envelope(chunk)
                try:
                    await self._feed(index, part, usage)
                except MalformedError as error:
                    problem = problem or error
        except MalformedError as error:
            problem = problem or error
        if problem is not None:
            raise problem

    async def _feed(self, index: int, part: JsonObject, usage: JsonObject | None) -> None:
        if index not in self._choices:
            self._choices[index] = ChoiceStream(
                index, shape=self._shape, moderator=self._moderator, sink=self, tasks=self._tasks
            )
        choice = self._choices[index]
        if choice.blocked:
            self._usage = usage or self._usage  # its own end was written before
        await choice.feed(part, usage=usage)

    async def _take_envelope(self, chunk: JsonObject) -> None:
        """Takes what surrounds all choices from the first chunk that has some."""
        if not self._envelope:
            clean = await self._moderator.identifiers([*map(chunk.get, ENVELOPE)])
            self._envelope = envelope(chunk, shape=self._shape, streamed=True, clean=clean)

    async def _usage_in(self, chunk: JsonObject) -> JsonObject | None:
        usage = chunk.get("usage")
        if not isinstance(usage, dict):
            return None
        numbers: JsonObject = only_numbers(usage, clean=await self._moderator.identifiers(usage))
        return numbers
