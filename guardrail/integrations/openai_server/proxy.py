"""The paths that lead upstream: completions moderated, lists and figures stripped of text."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field

import anyio
from fastapi import APIRouter, Request
from starlette.responses import Response

from guardrail.config import ServerSettings
from guardrail.errors import ConfigError
from guardrail.integrations.openai_server.answers import CHAT, KNOWN_FIELDS, TEXT, Kind
from guardrail.integrations.openai_server.connected import Streaming, Writer, late, while_connected
from guardrail.integrations.openai_server.metrics import Metrics
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.questions import Question
from guardrail.integrations.openai_server.refusals import error_beside
from guardrail.integrations.openai_server.relay import Relay
from guardrail.integrations.openai_server.replies import ApiError, JsonReply
from guardrail.integrations.openai_server.upstream import Answer, Upstream, malformed
from guardrail.integrations.openai_server.whole import moderated
from guardrail.integrations.openai_server.wire import MalformedError, inert

__all__ = ["Proxy", "completion_routes"]

EVENTS = "text/event-stream"


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
