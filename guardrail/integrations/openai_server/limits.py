"""How much one server takes at a time: requests in flight, bytes and seconds of a body, seconds in all."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.config import ServerSettings
from guardrail.engine.budget import within
from guardrail.integrations.openai_server.metrics import Metrics
from guardrail.integrations.web.errors import ApiError

__all__ = [
    "CLOSING_SECONDS",
    "ClientDisconnectedError",
    "LimitsMiddleware",
    "timeout_error",
    "while_connected",
]

UNLIMITED_PATHS = frozenset(("/healthz", "/metrics", "/readyz"))
"""Answered however full the server is, and without a look at the body: that is when people ask."""
T = TypeVar("T")
CLOSED_REQUEST = 499
CLOSING_SECONDS = 5.0
"""Seconds in which a stream that must end may still say what is clean of it, and why it ends."""


class LimitsMiddleware:
    """Refuses requests that are too many, too large or too slow to arrive, and those that cost too much.

    ``waited`` says for how long the guard has had a text wait for its detector.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServerSettings,
        metrics: Metrics,
        waited: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.app = app
        self._waited = waited
        self._settings = settings
        self._metrics = metrics
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or passes it on with its whole body read."""
        if scope["type"] != "http" or scope["path"] in UNLIMITED_PATHS:
            await self.app(scope, receive, send)
            return
        if (busy := self._overload()) is not None:
            await self._refuse(busy, scope, receive, send)
            return
        self._open += 1
        try:
            with within(self._settings.max_model_seconds):
                await self._limited(scope, receive, send)
        finally:
            self._open -= 1

    def _overload(self) -> ApiError | None:
        """The refusal of a request that would only wait."""
        waited = self._waited()
        if self._open < self._settings.max_requests and waited <= self._settings.max_wait:
            return None
        return ApiError(
            "more is asked than this server can answer now; try again later",
            status=429,
            kind="rate_limit_error",
            code="overloaded",
            headers={"retry-after": str(max(1, math.ceil(waited)))},
        )

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with anyio.fail_after(self._settings.body_timeout):
                body = await self._body(scope, receive)
        except ApiError as error:
            await self._refuse(error, scope, receive, send)
            return
        except TimeoutError:
            late = ApiError("the request's body did not arrive in time", status=408, code="body_timeout")
            await self._refuse(late, scope, receive, send)
            return
        if body is None:
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if the client has left."""
        limit = self._settings.max_body
        too_large = ApiError(f"the body is larger than {limit} bytes", status=413, code="body_too_large")
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdecimal() or int(declared[:20]) > limit:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > limit:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        self._metrics.limited.labels(error.body["error"]["code"]).inc()
        await error.reply()(scope, receive, send)


class ClientDisconnectedError(ApiError):
    """The client has left; there is nobody to tell."""

    def __init__(self) -> None:
        super().__init__("the client has left", status=CLOSED_REQUEST)


def timeout_error() -> ApiError:
    """The error for work that took longer than this server lets it."""
    return ApiError(
        "not done within this server's max_seconds", status=504, kind="server_error", code="timeout"
    )


async def while_connected(receive: Receive, work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """What the work returns, or raises.

    ClientDisconnectedError if the client leaves first, ApiError if the time is over.
    """
    failure: Exception = ClientDisconnectedError()
    results: list[T] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_wait_for_leaving, receive, tasks.cancel_scope)
        try:
            with anyio.fail_after(seconds):
                results.append(await work())
        except TimeoutError:
            failure = timeout_error()
        except Exception as error:  # noqa: BLE001  # raised below, outside the group that would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if results:
        return results[0]
    raise failure


async def _wait_for_leaving(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
