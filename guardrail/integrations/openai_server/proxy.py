"""The paths that lead upstream: completions moderated, lists and figures stripped of text."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from starlette.responses import Response

from guardrail.config import ServerSettings
from guardrail.errors import ConfigError
from guardrail.integrations.openai_server import whole
from guardrail.integrations.openai_server.answers import CHAT, KNOWN_FIELDS, TEXT, Kind
from guardrail.integrations.openai_server.connected import Streaming, Writer, while_connected
from guardrail.integrations.openai_server.metrics import Metrics
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.relay import Relay
from guardrail.integrations.openai_server.replies import ApiError, JsonReply
from guardrail.integrations.openai_server.upstream import Answer, Upstream, malformed
from guardrail.integrations.openai_server.wire import JsonObject, MalformedError, inert, is_identifier, parse

__all__ = ["Proxy", "asked", "completion_routes"]

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
        body = await request.body()
        question = asked(body)
        if question.get("stream") is True:
            if self.moderator.guard.policy.block == "whole":
                raise ApiError(
                    "the guard's policy withholds whole texts, which a stream cannot: ask without stream",
                    status=400,
                    param="stream",
                )
            return Streaming(
                lambda writer: self._stream(request, body, question, kind, path, writer),
                seconds=self.settings.max_seconds,
                on_cut=lambda error: self.metrics.cut_streams.labels(error.body["error"]["code"]).inc(),
            )
        return await while_connected(
            request.receive,
            lambda: self._whole(request, body, kind, path),
            seconds=self.settings.max_seconds,
        )

    async def figures(self, request: Request, *, path: str) -> Response:
        """An answer that holds no generated text, such as a list of models or scores."""

        async def work() -> Response:
            body = await request.body()
            async with self.behind().ask(
                request.method, path, headers=request.headers.raw, body=body
            ) as answer:
                return JsonReply(inert(await answer.json()), headers=answer.headers)

        return await while_connected(request.receive, work, seconds=self.settings.max_seconds)

    async def _whole(self, request: Request, body: bytes, kind: Kind, path: str) -> Response:
        async with self.behind().ask("POST", path, headers=request.headers.raw, body=body) as answer:
            content = await answer.json()
            headers = answer.headers
        try:
            result = await whole.moderated(
                content, kind=kind, moderator=self.moderator, allowed=self.settings.allowed_fields
            )
        except MalformedError as error:
            raise malformed(error) from None
        return JsonReply(result, headers=headers)

    async def _stream(
        self, request: Request, body: bytes, question: JsonObject, kind: Kind, path: str, writer: Writer
    ) -> None:
        upstream = self.behind()
        async with upstream.ask("POST", path, headers=request.headers.raw, body=body) as answer:
            _require_events(answer)
            writer.headers = dict(answer.headers)
            relay = Relay(
                answer,
                kind=kind,
                moderator=self.moderator,
                upstream=upstream,
                allowed=self.settings.allowed_fields,
                wanted=_wanted(question),
                write=writer.write,
            )
            await relay.run()


def asked(body: bytes) -> JsonObject:
    """The request's JSON object; ApiError where it is none."""
    try:
        return parse(body)
    except MalformedError as error:
        raise ApiError(f"the body is {error}", status=400) from None


def completion_routes(proxy: Proxy) -> APIRouter:
    """The routes whose answers come from upstream alone."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await proxy.complete(request, kind=CHAT, path="/v1/chat/completions")

    @router.post("/v1/completions")
    async def text(request: Request) -> Response:
        return await proxy.complete(request, kind=TEXT, path="/v1/completions")

    @router.get("/v1/models/{model:path}")
    async def model(request: Request, model: str) -> Response:
        if not is_identifier(model) or ".." in model or "//" in model:
            raise ApiError("no model can have this name", status=404, code="model_not_found")
        return await proxy.figures(request, path=f"/v1/models/{model}")

    return router


def _require_events(answer: Answer) -> None:
    media = answer.response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != EVENTS:
        raise malformed(MalformedError("no stream of events"))


def _wanted(question: JsonObject) -> int | None:
    """How many choices the answer will have; None where its end is wanted anyway, or nobody can tell."""
    options = question.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        return None
    prompts = question.get("prompt")
    batch = len(prompts) if isinstance(prompts, list) and all(isinstance(p, str) for p in prompts) else 1
    n = question.get("n") or 1
    return n * max(batch, 1) if type(n) is int else None
