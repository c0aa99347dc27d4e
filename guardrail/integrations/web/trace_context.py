"""The trace that a request belongs to: W3C's ``traceparent``, in logs, spans and upstream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from guardrail.integrations.web.telemetry import Telemetry

__all__ = ["TraceIds", "TraceMiddleware", "current_trace"]

NAME = "traceparent"
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class TraceIds:
    """Ids as hexadecimal digits: of the trace, and of the span that is its latest here."""

    trace_id: str
    span_id: str


_current: ContextVar[TraceIds | None] = ContextVar("guardrail_trace", default=None)


def current_trace() -> TraceIds | None:
    """The trace of the request that is being answered here; None if it belongs to none."""
    return _current.get()


class TraceMiddleware:
    """Takes up a request's trace, so that log lines name it.

    With ``telemetry`` there is a span for each request, and the upstream gets that as its parent; without,
    the request goes upstream with the ``traceparent`` that it came with.
    """

    def __init__(self, app: ASGIApp, *, paths: frozenset[str], telemetry: Telemetry | None = None) -> None:
        self.app = app
        self._paths = paths
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        shown = Headers(scope=scope).get(NAME, "")
        found = _TRACEPARENT.fullmatch(shown)
        if self._telemetry is None:
            with _taken_up(TraceIds(*found.groups()) if found else None):
                await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        with self._telemetry.request(scope["method"], path, shown if found else None) as span:

            async def noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.answered(message["status"])
                await send(message)

            others = [pair for pair in scope["headers"] if pair[0] != NAME.encode()]
            scope["headers"] = [*others, (NAME.encode(), span.traceparent.encode())]
            with _taken_up(TraceIds(span.trace_id, span.span_id)):
                await self.app(scope, receive, noting)


@contextmanager
def _taken_up(trace: TraceIds | None) -> Iterator[None]:
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)
