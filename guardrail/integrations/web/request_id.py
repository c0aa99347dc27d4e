"""One id for each request: the client's own or a new one, in logs, upstream and in the answer."""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RequestIdMiddleware", "current_request_id"]

NAME = "x-request-id"
UPSTREAM_NAME = "x-upstream-request-id"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=+/@-]{0,127}", re.ASCII)
_current: ContextVar[str | None] = ContextVar("guardrail_request_id", default=None)


def current_request_id() -> str | None:
    """The id of the request that is being answered here; None outside of one."""
    return _current.get()


class RequestIdMiddleware:
    """Takes a request's ``X-Request-ID``, or makes one if there is none or it is not an id.

    It is passed on with the request, so that an upstream hears of it, and comes back with the answer. An id
    of the upstream's own comes back as ``X-Upstream-Request-ID``.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        shown = Headers(scope=scope).get(NAME, "")
        name = shown if _ID.fullmatch(shown) else secrets.token_hex(16)
        others = [pair for pair in scope["headers"] if pair[0] != NAME.encode()]
        scope["headers"] = [*others, (NAME.encode(), name.encode())]

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if (theirs := headers.get(NAME)) is not None and theirs != name:
                    headers[UPSTREAM_NAME] = theirs
                headers[NAME] = name
            await send(message)

        token = _current.set(name)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            _current.reset(token)
