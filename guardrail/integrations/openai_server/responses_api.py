"""OpenAI's Responses API: responses of the upstream, moderated."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import Response

from guardrail.integrations.completions.completion import error_in
from guardrail.integrations.openai_server.proxy import Proxy
from guardrail.integrations.openai_server.request import AnswerStream, Exchange, Write, read_json
from guardrail.integrations.openai_server.sse import event
from guardrail.integrations.responses.response import ResponseContext, moderate_response
from guardrail.integrations.responses.stream import ResponseStream
from guardrail.integrations.strict_json import JsonObject
from guardrail.integrations.web.errors import ApiError

__all__ = ["responses_routes"]

PATH = "/v1/responses"


class ResponseExchange(Exchange):
    """A request for a response and its answer. ``path`` leads to one that was made before, if it is given;
    else ApiError if the body is not a JSON object.
    """

    def __init__(self, request: Request, body: bytes, proxy: Proxy, *, path: str = PATH) -> None:
        content = read_json(body) if path == PATH else {}
        streamed = content.get("stream") is True or request.query_params.get("stream") == "true"
        super().__init__(
            path,
            request.headers.raw,
            body,
            moderator=proxy.moderator_of(request, content),
            streamed=streamed,
            method=request.method,
        )
        self._asked = ResponseContext.read(content)
        self._stream: ResponseStream | None = None

    def error_in(self, content: JsonObject) -> object:
        """As Exchange has it. A response that failed is an answer and not an error."""
        return None if content.get("object") == "response" else error_in(content)

    async def moderated(self, content: JsonObject) -> JsonObject:
        return await moderate_response(content, moderator=self.moderator, asked=self._asked)

    def stream(self, write: Write) -> AnswerStream:
        self._stream = ResponseStream(
            moderator=self.moderator,
            asked=self._asked,
            write=lambda shown: write(event(shown, name=shown["type"])),
        )
        return self._stream

    def error_event(self, error: ApiError) -> bytes:
        """As Exchange has it: the fields that are documented, and the object for which clients raise."""
        inner = error.body["error"]
        number = self._stream.next_number if self._stream is not None else 0
        documented = {name: inner[name] for name in ("code", "message", "param")}
        shown = {"type": "error", **documented, "sequence_number": number, "error": inner}
        return event(shown, name="error")


def responses_routes(proxy: Proxy) -> APIRouter:
    router = APIRouter()

    @router.post(PATH)
    async def respond(request: Request) -> Response:
        exchange = ResponseExchange(request, await request.body(), proxy)
        return await proxy.exchange(request, exchange)

    @router.get(f"{PATH}/{{identity}}")
    async def retrieve(request: Request, identity: str) -> Response:
        query = f"?{request.url.query}" if request.url.query else ""
        return await earlier(request, f"{PATH}/{quote(identity, safe='')}{query}")

    @router.post(f"{PATH}/{{identity}}/cancel")
    async def cancel(request: Request, identity: str) -> Response:
        return await earlier(request, f"{PATH}/{quote(identity, safe='')}/cancel")

    async def earlier(request: Request, path: str) -> Response:
        exchange = ResponseExchange(request, await request.body(), proxy, path=path)
        return await proxy.exchange(request, exchange)

    return router
