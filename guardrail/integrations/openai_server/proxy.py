"""The paths that lead upstream: completions moderated, lists and figures stripped of text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import cast

import anyio
from fastapi import APIRouter, Request
from starlette.responses import Response

from guardrail.config import ServerSettings
from guardrail.errors import ConfigError, FailureError
from guardrail.integrations.completions.completion import (
    CHAT,
    ENVELOPE,
    KNOWN_FIELDS,
    TEXT,
    Kind,
    Terms,
    envelope,
    moderated,
)
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.sanitize import inert, numbers
from guardrail.integrations.completions.stream import StreamedChoice
from guardrail.integrations.openai_server.limits import late, while_connected
from guardrail.integrations.openai_server.metrics import Metrics
from guardrail.integrations.openai_server.request import Question
from guardrail.integrations.openai_server.sse import DONE, EventReader, Streaming, Writer, event
from guardrail.integrations.openai_server.upstream import Answer, Upstream, error_beside, malformed
from guardrail.integrations.strict_json import JsonObject, MalformedError, loads
from guardrail.integrations.web.errors import ApiError, JsonReply, unable

__all__ = [
    "Proxy",
    "Relay",
    "completion_routes",
]

EVENTS = "text/event-stream"

END = "[DONE]"


@dataclass(frozen=True, slots=True)
class Proxy:
    """Everything that a proxied request needs; ``upstream`` is None for a server that has none."""

    upstream: Upstream | None
    moderator: Moderator
    metrics: Metrics
    settings: ServerSettings = field(default_factory=ServerSettings)

    def __post_init__(self) -> None:
        if known := KNOWN_FIELDS.intersection(self.settings.allowed_fields):
            raise ConfigError(
                f"server allowed_fields: {', '.join(sorted(known))} have a meaning of their own"
            )

    def behind(self) -> Upstream:
        """The upstream; ApiError where there is none."""
        if self.upstream is None:
            raise ApiError(
                "this server has no upstream: start it with --upstream URL", status=404, code="no_upstream"
            )
        return self.upstream

    async def complete(self, request: Request, *, kind: Kind, path: str) -> Response:
        """The answer of a language model, moderated."""
        question = Question.read(
            await request.body(),
            path=path,
            headers=request.headers.raw,
            kind=kind,
            allowed=self.settings.allowed_fields,
        )
        seconds = self.settings.max_seconds
        if not question.streamed:
            return await while_connected(request.receive, lambda: self._whole(question), seconds=seconds)
        if self.moderator.guard.policy.block == "whole":
            raise ApiError(
                "the guard's policy withholds whole texts, which a stream cannot: ask without stream",
                status=400,
                param="stream",
            )
        return Streaming(
            lambda writer: self._stream(question, writer), seconds=seconds, on_cut=self.metrics.count_cut
        )

    async def figures(self, request: Request, *, path: str) -> Response:
        """An answer that holds no generated text, such as a list of models or scores."""

        async def work() -> Response:
            body = await request.body()
            async with self.behind().ask(
                request.method, path, headers=request.headers.raw, body=body
            ) as answer:
                content = await answer.json()
                clean = await self.moderator.identifiers(content)
                return JsonReply(inert(content, clean=clean), headers=answer.headers)

        return await while_connected(request.receive, work, seconds=self.settings.max_seconds)

    async def _whole(self, question: Question) -> Response:
        async with self._asking(question) as answer:
            content = await answer.json()
        if not content.get("choices") and (error := error_beside(content)) is not None:
            raise await self.behind().told(error, status=502, headers=answer.headers)
        try:
            result = await moderated(content, terms=question.terms, moderator=self.moderator)
        except MalformedError as error:
            raise malformed(error) from None
        return JsonReply(result, headers=answer.headers)

    async def _stream(self, question: Question, writer: Writer) -> None:
        seconds = self.settings.max_seconds
        over = anyio.current_time() + seconds
        async with AsyncExitStack() as stack:
            try:
                with anyio.fail_after(seconds):
                    answer = await stack.enter_async_context(self._asking(question))
            except TimeoutError:
                raise late() from None
            _require_events(answer)
            writer.headers = dict(answer.headers)
            relay = Relay(
                answer,
                terms=question.terms,
                moderator=self.moderator,
                upstream=self.behind(),
                wanted=question.wanted,
                over=over,
                write=writer.write,
            )
            await relay.run()

    def _asking(self, question: Question) -> AbstractAsyncContextManager[Answer]:
        return self.behind().ask("POST", question.path, headers=question.headers, body=question.body)


def completion_routes(proxy: Proxy) -> APIRouter:
    """The routes whose answers come from upstream alone."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await proxy.complete(request, kind=CHAT, path="/v1/chat/completions")

    @router.post("/v1/completions")
    async def text(request: Request) -> Response:
        return await proxy.complete(request, kind=TEXT, path="/v1/completions")

    return router


def _require_events(answer: Answer) -> None:
    media = answer.response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != EVENTS:
        raise malformed(MalformedError("no stream of events"))


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
