"""Errors as OpenAI's clients read them: a status and ``{"error": {message, type, param, code}}``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from guardrail.errors import FailureError, GuardrailError
from guardrail.integrations.openai_server.wire import JsonObject, dumps

logger = logging.getLogger("guardrail.server")

__all__ = ["ApiError", "JsonReply", "http_error", "invalid_request", "misfit", "unable"]


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
