"""Anthropic's Messages API: messages of the upstream, moderated."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.integrations.completions.completion import error_in
from guardrail.integrations.messages.message import MessageContext, moderate_message
from guardrail.integrations.messages.stream import MessageStream
from guardrail.integrations.openai_server.proxy import Proxy
from guardrail.integrations.openai_server.request import AnswerStream, Exchange, Write, read_json
from guardrail.integrations.openai_server.sse import event
from guardrail.integrations.strict_json import JsonObject, dumps, parse
from guardrail.integrations.web.errors import ApiError

__all__ = ["MessageErrorsMiddleware", "messages_routes"]

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""What this API calls errors of a status; "api_error" from 500 on, "invalid_request_error" below."""


class MessageExchange(Exchange):
    """A request for a message and its answer; ApiError if the body is not a JSON object."""

    def __init__(self, request: Request, body: bytes, proxy: Proxy) -> None:
        content = read_json(body)
        moderator = proxy.moderator_of(request, content)
        streamed = content.get("stream") is True
        super().__init__(PATH, request.headers.raw, body, moderator=moderator, streamed=streamed)
        self._asked = MessageContext.read(content)

    def error_in(self, content: JsonObject) -> object:
        return error_in(content)

    async def moderated(self, content: JsonObject) -> JsonObject:
        return await moderate_message(content, moderator=self.moderator, asked=self._asked)

    def stream(self, write: Write) -> AnswerStream:
        return MessageStream(
            moderator=self.moderator,
            asked=self._asked,
            write=lambda shown: write(event(shown, name=shown["type"])),
        )

    def error_event(self, error: ApiError) -> bytes:
        return event(_error(error.body, status=error.status), name="error")


def messages_routes(proxy: Proxy) -> APIRouter:
    router = APIRouter()

    @router.post(PATH)
    async def message(request: Request) -> Response:
        exchange = MessageExchange(request, await request.body(), proxy)
        return await proxy.exchange(request, exchange)

    @router.post(COUNT)
    async def count(request: Request) -> Response:
        return await proxy.forward_json(request, path=COUNT)

    return router


class MessageErrorsMiddleware:
    """Gives errors of these paths the form of this API, whoever raised them."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in (PATH, COUNT):
            await self.app(scope, receive, send)
            return
        head: Message | None = None
        body = b""

        async def formed(message: Message) -> None:
            nonlocal head, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                head = message
            elif head is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _send_error(head, body, send)

        await self.app(scope, receive, formed)


async def _send_error(head: Message, body: bytes, send: Send) -> None:
    if body:  # not in answer to HEAD
        body = dumps(_error(parse(body), status=head["status"])).encode("ascii")
    headers = [(name, value) for name, value in head["headers"] if name.lower() != b"content-length"]
    await send({**head, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


def _error(body: JsonObject, *, status: int) -> JsonObject:
    """An error of this server, or one that it passes on, as this API has it."""
    error = body["error"]
    kind = error["type"]
    if not kind.endswith("_error") or kind in ("upstream_error", "server_error"):
        kind = KINDS.get(status, "api_error")
    elif kind == "invalid_request_error" and error["code"] is not None:
        kind = KINDS.get(status, kind)
    details = {"details": {"error_code": error["code"]}} if error["code"] is not None else {}
    return {"type": "error", "error": {"type": kind, "message": error["message"], **details}}
