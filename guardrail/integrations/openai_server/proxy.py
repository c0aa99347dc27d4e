"""The paths that lead upstream: completions moderated, lists and scores stripped of text."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field
from functools import partial

import anyio
from fastapi import APIRouter, Request
from starlette.responses import Response

from guardrail.config import ServerSettings
from guardrail.errors import ConfigError, FailureError
from guardrail.integrations.completions.completion import (
    CHAT,
    KNOWN_FIELDS,
    TEXT,
    CompletionKind,
    error_in,
    moderate_completion,
)
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.sanitize import without_text
from guardrail.integrations.completions.stream import AnsweredError, CompletionStream
from guardrail.integrations.openai_server.limits import timeout_error, while_connected
from guardrail.integrations.openai_server.metrics import Metrics
from guardrail.integrations.openai_server.request import (
    AnswerStream,
    CompletionRequest,
    Exchange,
    Moderators,
    Write,
)
from guardrail.integrations.openai_server.sse import (
    DONE,
    EventReader,
    EventStreamResponse,
    EventWriter,
    event,
)
from guardrail.integrations.openai_server.upstream import Upstream, UpstreamAnswer, malformed, parsed
from guardrail.integrations.strict_json import JsonObject, MalformedError, loads
from guardrail.integrations.web.errors import ApiError, JsonReply, guard_unavailable

__all__ = ["Proxy", "completion_routes"]

EVENTS = "text/event-stream"
END = "[DONE]"
_QUOTED = ' "\r\n'


@dataclass(frozen=True, slots=True)
class Proxy:
    """Everything that a proxied request needs; ``upstream`` is None for a server that has none."""

    upstream: Upstream | None
    moderators: Moderators
    metrics: Metrics
    settings: ServerSettings = field(default_factory=ServerSettings)

    def __post_init__(self) -> None:
        if known := KNOWN_FIELDS.intersection(self.settings.allowed_fields):
            raise ConfigError(
                f"server allowed_fields: {', '.join(sorted(known))} have a meaning of their own"
            )

    def require_upstream(self) -> Upstream:
        """The upstream; ApiError if there is none."""
        if self.upstream is None:
            raise ApiError(
                "this server has no upstream: start it with --upstream URL", status=404, code="no_upstream"
            )
        return self.upstream

    def moderator_of(self, request: Request, content: JsonObject) -> Moderator:
        """The moderator under whose policy a request is, by its headers and the model in its body."""
        return self.moderators.choose(request.headers, content.get("model"))

    async def complete(self, request: Request, *, kind: CompletionKind, path: str) -> Response:
        body = await request.body()
        asked = CompletionRequest.read(
            body,
            path=path,
            headers=request.headers.raw,
            kind=kind,
            allowed=self.settings.allowed_fields,
        )
        moderator = self.moderators.choose(request.headers, asked.shape.model)
        return await self.exchange(request, CompletionExchange(asked, moderator))

    async def exchange(self, request: Request, exchange: Exchange) -> Response:
        """The answer of a language model, moderated."""
        seconds, policy = self.settings.max_seconds, exchange.moderator.guard.policy
        if not exchange.streamed:
            whole = self._whole if policy.enforce else self._passed_on
            return await while_connected(request.receive, lambda: whole(exchange), seconds=seconds)
        if not policy.can_stream:
            raise ApiError(
                "the guard's policy withholds whole texts, which a stream cannot: ask without stream",
                status=400,
                param="stream",
            )
        return EventStreamResponse(
            lambda writer: (self._stream if policy.enforce else self._pass_on)(exchange, writer),
            seconds=seconds,
            on_cut=self.metrics.count_cut,
            error_event=exchange.error_event,
        )

    async def forward_json(self, request: Request, *, path: str) -> Response:
        """An answer that holds no generated text, such as a list of models or scores."""

        async def work() -> Response:
            body = await request.body()
            async with self.require_upstream().request(
                request.method, path, headers=request.headers.raw, body=body
            ) as answer:
                content = await answer.json()
                clean = await self.moderators.default.identifiers(content)
                return JsonReply(without_text(content, clean=clean), headers=answer.headers)

        return await while_connected(request.receive, work, seconds=self.settings.max_seconds)

    async def _whole(self, exchange: Exchange) -> Response:
        async with self._ask(exchange) as answer:
            content = await answer.json()
        if (found := exchange.error_in(content)) is not None:
            raise await self.require_upstream().to_api_error(found, status=502, headers=answer.headers)
        try:
            result = await exchange.moderated(content)
        except MalformedError as error:
            raise malformed(error) from None
        return JsonReply(result, headers=answer.headers)

    async def _passed_on(self, exchange: Exchange) -> Response:
        """The answer as it came, in monitor mode. It is judged behind, or before if a report is wanted."""
        async with self._ask(exchange) as answer:
            body = await answer.read()
        content = parsed(body)
        if (found := exchange.error_in(content)) is not None:
            raise await self.require_upstream().to_api_error(found, status=502, headers=answer.headers)
        if self.settings.report:
            with suppress(MalformedError):
                result = await exchange.moderated(content)
                return JsonReply(content | {"guardrail": result["guardrail"]}, headers=answer.headers)
        else:
            exchange.moderator.guard.defer(partial(anyio.run, exchange.moderated, content))
        return Response(body, media_type="application/json", headers=answer.headers)

    async def _pass_on(self, exchange: Exchange, writer: EventWriter) -> None:
        """Writes a streamed answer as it comes, in monitor mode, and has it judged behind its end."""
        payloads: list[str] = []
        try:
            with anyio.fail_after(self.settings.max_seconds):
                async with self._ask(exchange) as answer:
                    _require_event_stream(answer)
                    writer.headers = dict(answer.headers)
                    reader = EventReader(limit=answer.limit)
                    async with aclosing(answer.chunks()) as chunks:
                        async for chunk in chunks:
                            await writer.write(chunk)
                            payloads += reader.feed(chunk)
                    payloads += reader.close()
        except MalformedError as error:
            raise malformed(error) from None
        except TimeoutError:
            raise timeout_error() from None
        finally:
            exchange.moderator.guard.defer(partial(anyio.run, _judge, exchange, payloads))

    async def _stream(self, exchange: Exchange, writer: EventWriter) -> None:
        deadline = anyio.current_time() + self.settings.max_seconds
        stream = exchange.stream(writer.write)
        async with AsyncExitStack() as stack:
            try:
                with anyio.fail_after(self.settings.max_seconds):
                    answer = await stack.enter_async_context(self._ask(exchange))
            except TimeoutError:
                raise timeout_error() from None
            _require_event_stream(answer)
            writer.headers = dict(answer.headers)
            chunks = await stack.enter_async_context(aclosing(_chunks(answer, stream)))
            await self._run(stream, chunks, deadline=deadline)
        if exchange.last:
            await writer.write(exchange.last)

    async def _run(
        self, stream: AnswerStream, chunks: AsyncGenerator[object, None], *, deadline: float
    ) -> None:
        """Runs the stream to its end; ApiError for whatever ends it early."""
        try:
            try:
                await stream.run(chunks, deadline=deadline)
            except AnsweredError as error:
                raise await self.require_upstream().to_api_error(error.error, status=502) from None
        except MalformedError as error:
            raise malformed(error) from None
        except TimeoutError:
            raise timeout_error() from None
        except FailureError as error:
            raise guard_unavailable(error) from None

    def _ask(self, exchange: Exchange) -> AbstractAsyncContextManager[UpstreamAnswer]:
        return self.require_upstream().request(
            exchange.method, exchange.path, headers=exchange.headers, body=exchange.body
        )


class CompletionExchange(Exchange):
    """A completion and its answer."""

    def __init__(self, asked: CompletionRequest, moderator: Moderator) -> None:
        super().__init__(
            asked.path, asked.headers, asked.body, moderator=moderator, streamed=asked.streamed, last=DONE
        )
        self._asked = asked

    def error_in(self, content: JsonObject) -> object:
        return None if content.get("choices") else error_in(content)

    async def moderated(self, content: JsonObject) -> JsonObject:
        return await moderate_completion(content, shape=self._asked.shape, moderator=self.moderator)

    def stream(self, write: Write) -> AnswerStream:
        return CompletionStream(
            shape=self._asked.shape,
            moderator=self.moderator,
            write=lambda chunk: write(event(chunk)),
            choices_wanted=self._asked.choices_wanted,
        )


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


async def _judge(exchange: Exchange, payloads: list[str]) -> None:
    """Reads a streamed answer that was shown already."""

    async def events() -> AsyncGenerator[object, None]:
        for payload in payloads:
            if payload.strip(_QUOTED).upper() == END:
                return
            if payload.strip():
                yield loads(payload)

    async def drop(content: bytes) -> None:
        pass

    await exchange.stream(drop).run(events(), deadline=math.inf)


def _require_event_stream(answer: UpstreamAnswer) -> None:
    media = answer.response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != EVENTS:
        raise malformed(MalformedError("no stream of events"))


async def _chunks(answer: UpstreamAnswer, stream: AnswerStream) -> AsyncGenerator[object, None]:
    """The JSON values of an answer's events, up to ``[DONE]``; ApiError if it ends in the middle."""
    async with aclosing(_payloads(answer)) as payloads:
        async for payload in payloads:
            if payload.strip('"').upper() == END:
                return
            if payload:
                yield loads(payload)
    if not stream.is_over:
        raise ApiError(
            "the upstream ended its answer in the middle",
            status=502,
            kind="upstream_error",
            code="upstream_disconnected",
        )


async def _payloads(answer: UpstreamAnswer) -> AsyncGenerator[str, None]:
    reader = EventReader(limit=answer.limit)
    async with aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            for payload in reader.feed(chunk):
                yield payload.strip()
    for payload in reader.close():
        yield payload.strip()
