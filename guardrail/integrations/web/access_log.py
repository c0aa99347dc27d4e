"""A log line for each request, without text: what was asked is named by its route."""

from __future__ import annotations

import logging
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.integrations.web.request_id import current_request_id

__all__ = ["AccessLogMiddleware"]

logger = logging.getLogger("guardrail.access")

QUIET_PATHS = frozenset(("/healthz", "/metrics", "/readyz"))
"""Asked every few seconds by machines: logged at DEBUG."""
METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
OTHER = "other"
CLOSED_REQUEST = 499


class AccessLogMiddleware:
    """Logs method, route, status, milliseconds, bytes sent and the request's id when the answer has ended.

    A path that is not in ``paths`` is named by the route that took it, such as ``/v1/models/{name}``, or
    ``other``; an answer that never began has the status 499, for its client had left.
    """

    def __init__(self, app: ASGIApp, *, paths: frozenset[str]) -> None:
        self.app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        status, size = CLOSED_REQUEST, 0

        async def noting(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            fields = {
                "method": scope["method"] if scope["method"] in METHODS else OTHER,
                "path": self._path(scope),
                "status": status,
                "milliseconds": round(1000 * (perf_counter() - started)),
                "bytes": size,
                "request_id": current_request_id(),
            }
            level = logging.DEBUG if scope["path"] in QUIET_PATHS else logging.INFO
            logger.log(
                level, "%s %s %d %d ms %d bytes %s", *fields.values(), extra={"guardrail_fields": fields}
            )

    def _path(self, scope: Scope) -> str:
        if scope["path"] in self._paths:
            return str(scope["path"])
        return str(getattr(scope.get("route"), "path", OTHER))
