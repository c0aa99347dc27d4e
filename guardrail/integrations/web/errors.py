"""Errors as OpenAI's clients read them: a status and ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.errors import BudgetError, FailureError, GuardrailError
from guardrail.integrations.strict_json import JsonObject, dumps

__all__ = [
    "ApiError",
    "ErrorMiddleware",
    "JsonReply",
    "add_error_handlers",
    "guard_unavailable",
    "validation_error",
]

logger = logging.getLogger("guardrail.server")


class ApiError(GuardrailError):
    """Ends a request with an error that the client sees. The message holds no text of anyone's."""

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
        return JsonReply(self.body, status_code=self.status, headers=self.headers)


class JsonReply(Response):
    """JSON in ASCII, so that lone surrogates survive."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return dumps(content).encode("ascii")


def guard_unavailable(error: FailureError) -> ApiError:
    """The error for a guard that cannot work, or may not any longer: nothing passes, the log says why."""
    if isinstance(error, BudgetError):
        logger.warning("a request was too costly: %s", error)
        return ApiError(
            "moderating this takes longer than the server's max_model_seconds, so the rest is withheld",
            status=413,
            code="too_costly",
        )
    logger.error("the guard cannot work: %s", error)
    return ApiError(
        "the guard cannot work, so nothing is passed on; the server's log names the reason",
        status=503,
        kind="server_error",
        code="guard_unavailable",
    )


def validation_error(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The error for a body of the wrong shape: the first field that is wrong, without its value."""
    first = errors[0]
    param = ".".join(str(part) for part in first["loc"] if part != "body") or None
    return ApiError(f"{param or 'body'}: {first['msg']}", status=400, param=param)


def add_error_handlers(app: FastAPI) -> None:
    """Has an application answer its own errors, and those of FastAPI, in this shape."""
    app.add_exception_handler(ApiError, _api_error_reply)
    app.add_exception_handler(HTTPException, _http_error_reply)
    app.add_exception_handler(RequestValidationError, _validation_error_reply)


def _api_error_reply(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.reply()


def _http_error_reply(request: Request, error: Exception) -> Response:
    """The answer for a path that does not exist or a method that it does not have."""
    assert isinstance(error, HTTPException)
    message = "this path is not served here" if error.status_code == 404 else str(error.detail)
    return ApiError(message, status=error.status_code, code="unknown_url", headers=error.headers).reply()


def _validation_error_reply(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return validation_error(error.errors()).reply()


class ErrorMiddleware:
    """Answers what failed unforeseen with an error that says nothing, and logs where it failed.

    The exception itself goes no further: its message may quote a text, and servers log what they catch.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def observed_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, observed_send)
        except Exception as error:  # noqa: BLE001  # whatever it is, its message stays here
            answer = guard_unavailable(error) if isinstance(error, FailureError) else _internal_error(error)
            if not started:
                await answer.reply()(scope, receive, send)


def _internal_error(error: Exception) -> ApiError:
    where = traceback.extract_tb(error.__traceback__)[-1]
    logger.error("%s in %s, line %s", type(error).__name__, where.name, where.lineno)
    return ApiError("the server failed; its log names the place", status=500, kind="server_error")
