"""The server put together: routes, and around them limits, authentication, errors and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from guardrail.config import ServerSettings
from guardrail.guard import Guard
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.report import reported
from guardrail.integrations.openai_server.detoxify import detoxify_routes
from guardrail.integrations.openai_server.gateways import GATEWAY_PATHS, gateway_routes
from guardrail.integrations.openai_server.guard_api import guard_routes
from guardrail.integrations.openai_server.limits import LimitsMiddleware
from guardrail.integrations.openai_server.messages_api import MessageErrorsMiddleware, messages_routes
from guardrail.integrations.openai_server.metrics import Metrics, MetricsMiddleware, Readiness, health_routes
from guardrail.integrations.openai_server.proxy import Proxy, completion_routes
from guardrail.integrations.openai_server.request import Moderators
from guardrail.integrations.openai_server.responses_api import responses_routes
from guardrail.integrations.openai_server.upstream import Upstream
from guardrail.integrations.web.access_log import AccessLogMiddleware
from guardrail.integrations.web.auth import AuthMiddleware, Keys
from guardrail.integrations.web.errors import ErrorMiddleware, JsonReply, add_error_handlers
from guardrail.integrations.web.pages import SecurityHeadersMiddleware, add_files
from guardrail.integrations.web.request_id import RequestIdMiddleware
from guardrail.integrations.web.trace_context import TraceMiddleware
from guardrail.outcome import Outcome
from guardrail.policy import Policy

if TYPE_CHECKING:
    from guardrail.integrations.web.telemetry import Telemetry

__all__ = ["create_app"]

PAGE = Path(__file__).parent / "page"
PLAYGROUND = {
    "/": PAGE / "index.html",
    "/page.css": PAGE / "page.css",
    "/page.js": PAGE / "page.js",
    "/marks.js": PAGE / "marks.js",
    "/snippets.js": PAGE / "snippets.js",
    "/icon.svg": PAGE / "icon.svg",
}
"""The page to try the guard on."""
PATHS = frozenset(
    {
        *("/v1/chat/completions", "/v1/completions", "/v1/moderations", "/v1/embeddings", "/v1/models"),
        *("/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
        *("/v1/detoxify", "/healthz", "/readyz", "/metrics", "/page.json", *GATEWAY_PATHS, *PLAYGROUND),
    }
)

CORS: dict[str, Any] = {
    "allow_methods": ("GET", "POST"),
    "allow_headers": ("*",),  # clients send headers of their own, such as OpenAI's x-stainless-*
    "expose_headers": ("x-request-id", "x-upstream-request-id", "retry-after"),
}
"""What pages of listed origins may send and read; keys travel in a header, so no cookies."""


def create_app(
    guard: Guard,
    *,
    settings: ServerSettings | None = None,
    keys: Keys | None = None,
    routers: Sequence[APIRouter] = (),
    telemetry: Telemetry | None = None,
) -> FastAPI:
    """The server as an ASGI application around a guard.

    Args:
        guard: The guard that moderates.
        settings: How the server works; None: the defaults.
        keys: Keys of clients and of the upstream; None: those of the environment.
        routers: Further paths, such as the audit page. Proxy keys are asked for on ``/v1/...`` and
            ``/metrics`` alone: whoever adds a router protects its other paths.
        telemetry: Records spans; None: one that exports them if the settings say so.
    """
    settings = settings or ServerSettings()
    keys = keys if keys is not None else Keys.from_environment()
    metrics = Metrics()
    telemetry = telemetry or _telemetry(settings)
    moderators = Moderators(
        guard,
        settings.policies,
        keys=keys,
        tenant_header=settings.tenant_header,
        on_outcome=_counting(metrics, telemetry),
    )
    metrics.watch(*moderators.guards)
    upstream = _upstream(settings, keys, moderators.default)
    proxy = Proxy(upstream, moderators, metrics, settings)
    readiness = Readiness(guard)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(readiness.prepare)
            tasks.start_soon(metrics.look_at_queues)
            yield
            tasks.cancel_scope.cancel()  # a server that is being stopped does not finish loading
        if upstream is not None:
            await upstream.aclose()

    # Documentation pages would load their scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    for router in (
        detoxify_routes(proxy),
        guard_routes(proxy),
        gateway_routes(proxy),
        completion_routes(proxy),
        responses_routes(proxy),
        messages_routes(proxy),
        health_routes(readiness, metrics),
        _playground_routes(audit=_serves(routers, "/audit"), upstream=upstream is not None),
        *routers,
    ):
        _answer_head(router)
        app.include_router(router)
    add_error_handlers(app)
    if settings.report:
        app.add_middleware(ReportMiddleware)
    # Innermost first.
    app.add_middleware(LimitsMiddleware, settings=settings, metrics=metrics, waited=metrics.waited)
    app.add_middleware(AuthMiddleware, keys=keys, origins=settings.cors)
    app.add_middleware(ErrorMiddleware)
    app.add_middleware(MessageErrorsMiddleware)
    app.add_middleware(SecurityHeadersMiddleware)
    if settings.cors:
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors, **CORS)
    app.add_middleware(MetricsMiddleware, metrics=metrics, paths=PATHS, telemetry=telemetry)
    if settings.access_log:
        app.add_middleware(AccessLogMiddleware, paths=PATHS)
    app.add_middleware(TraceMiddleware, paths=PATHS, telemetry=telemetry)
    app.add_middleware(RequestIdMiddleware)
    return app


class ReportMiddleware:
    """Has what is changed in an answer noted, so that the answer can say it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with reported():
            await self.app(scope, receive, send)


def _telemetry(settings: ServerSettings) -> Telemetry | None:
    if not settings.otel:
        return None
    from guardrail.integrations.web.telemetry import Telemetry, set_up_export

    set_up_export()
    return Telemetry()


def _counting(metrics: Metrics, telemetry: Telemetry | None) -> Callable[[Outcome, Policy], object]:
    """Who hears of every outcome."""
    if telemetry is None:
        return metrics.count

    def count(outcome: Outcome, policy: Policy) -> None:
        metrics.count(outcome, policy)
        telemetry.record(outcome, policy)

    return count


def _upstream(settings: ServerSettings, keys: Keys, moderator: Moderator) -> Upstream | None:
    if settings.upstream is None:
        return None
    return Upstream(settings, key=keys.upstream, consumed=bool(keys.proxy), moderator=moderator)


def _playground_routes(*, audit: bool, upstream: bool) -> APIRouter:
    """The page, and what it has to know of this server."""
    router = APIRouter()
    add_files(router, PLAYGROUND)

    @router.get("/page.json")
    async def about() -> Response:
        return JsonReply({"audit": audit, "upstream": upstream})

    return router


def _serves(routers: Sequence[APIRouter], path: str) -> bool:
    return any(getattr(route, "path", None) == path for router in routers for route in router.routes)


def _answer_head(router: APIRouter) -> None:
    """Has every path that answers GET answer HEAD, as HTTP wants it; the server leaves the body out."""
    for route in router.routes:
        if isinstance(route, Route) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
