"""Errors as OpenAI's clients read them: a status and ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.errors import FailureError, GuardrailError
from guardrail.integrations.strict_json import JsonObject, dumps

__all__ = [
    "ApiError",
    "JsonReply",
    "Sealed",
    "http_error",
    "invalid_request",
    "misfit",
    "unable",
]

logger = logging.getLogger("guardrail.server")

BROWSER_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class ApiError(GuardrailError):
    """Ends a request with an error that the client is told. The message holds no text of anyone's."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.body: JsonObject = {
            "error": {"message": message, "type": kind, "param": param, "code": code},
        }

    def reply(self) -> JsonReply:
        """The whole answer."""
        return JsonReply(self.body, status_code=self.status, headers=self.headers)


class JsonReply(Response):
    """JSON in ASCII, so that lone surrogates survive."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The body."""
        return dumps(content).encode("ascii")


def unable(error: FailureError) -> ApiError:
    """The error for a guard that cannot work: nothing passes, and the log names the reason."""
    logger.error("the guard cannot work: %s", error)
    return ApiError(
        "the guard cannot work, so nothing is passed on; the server's log names the reason",
        status=503,
        kind="server_error",
        code="guard_unavailable",
    )


def http_error(request: Request, error: Exception) -> Response:
    """What becomes of a path that does not exist or a method that it does not have."""
    assert isinstance(error, HTTPException)
    message = "this path is not served here" if error.status_code == 404 else str(error.detail)
    return ApiError(message, status=error.status_code, code="unknown_url", headers=error.headers).reply()


def invalid_request(request: Request, error: Exception) -> Response:
    """What becomes of a body that does not fit a route's own model."""
    assert isinstance(error, RequestValidationError)
    return misfit(error.errors()).reply()


def misfit(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The error for a body that does not fit: the first field that is wrong, without its value."""
    first = errors[0]
    param = ".".join(str(part) for part in first["loc"] if part != "body") or None
    return ApiError(f"{param or 'body'}: {first['msg']}", status=400, param=param)


class Sealed:
    """Answers what failed unforeseen with an error that says nothing, and logs where it failed.

    The exception itself goes no further: its message may quote a text, and servers log what they catch.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def dressed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in BROWSER_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, dressed)
        except Exception as error:  # noqa: BLE001  # whatever it is, its message stays here
            reply = unable(error) if isinstance(error, FailureError) else _unforeseen(error)
            if not started:
                await reply.reply()(scope, receive, dressed)


def _unforeseen(error: Exception) -> ApiError:
    where = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s in %s, line %s", type(error).__name__, where.name, where.lineno)
    return ApiError("the server failed; its log names the place", status=500, kind="server_error")
