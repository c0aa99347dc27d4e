"""The server put together: routes, and around them limits, authentication, errors and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from fastapi import APIRouter, FastAPI
from starlette.routing import Route

from guardrail.config import ServerSettings
from guardrail.guard import Guard
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.openai_server.guard_api import ModeratorCache, guard_routes
from guardrail.integrations.openai_server.health import Readiness, health_routes
from guardrail.integrations.openai_server.limits import LimitsMiddleware
from guardrail.integrations.openai_server.messages_api import MessageErrorsMiddleware, messages_routes
from guardrail.integrations.openai_server.metrics import Metrics, MetricsMiddleware
from guardrail.integrations.openai_server.proxy import Proxy, completion_routes
from guardrail.integrations.openai_server.responses_api import responses_routes
from guardrail.integrations.openai_server.upstream import Upstream
from guardrail.integrations.web.auth import AuthMiddleware, Keys
from guardrail.integrations.web.errors import ErrorMiddleware, add_error_handlers
from guardrail.integrations.web.pages import SecurityHeadersMiddleware, add_files

__all__ = ["create_app"]

PAGE = Path(__file__).parent / "page"
PLAYGROUND = {
    "/": PAGE / "index.html",
    "/page.css": PAGE / "page.css",
    "/page.js": PAGE / "page.js",
    "/icon.svg": PAGE / "icon.svg",
}
"""The page to try the guard on."""
PATHS = frozenset(
    {
        *("/v1/chat/completions", "/v1/completions", "/v1/moderations", "/v1/embeddings", "/v1/models"),
        *("/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
        *("/v1/detoxify", "/healthz", "/readyz", "/metrics", *PLAYGROUND),
    }
)


def create_app(
    guard: Guard,
    *,
    settings: ServerSettings | None = None,
    keys: Keys | None = None,
    routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """The server as an ASGI application around a guard.

    ``keys`` are those of the environment if omitted. ``routers`` add paths of their own, such as the audit
    page; whoever adds one protects it: proxy keys are asked for on ``/v1/...`` and ``/metrics`` alone.
    """
    settings = settings or ServerSettings()
    keys = keys if keys is not None else Keys.from_environment()
    metrics = Metrics()
    moderator = Moderator(guard, on_outcome=metrics.count)
    upstream = _upstream(settings, keys, moderator)
    proxy = Proxy(upstream, moderator, metrics, settings)
    readiness = Readiness(guard)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(readiness.prepare)
            yield
            tasks.cancel_scope.cancel()  # a server that is being stopped does not finish loading
        if upstream is not None:
            await upstream.aclose()

    # Documentation pages would load their scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    for router in (
        guard_routes(proxy, ModeratorCache(moderator)),
        completion_routes(proxy),
        responses_routes(proxy),
        messages_routes(proxy),
        health_routes(readiness, metrics),
        _playground_routes(),
        *routers,
    ):
        _answer_head(router)
        app.include_router(router)
    add_error_handlers(app)
    app.add_middleware(LimitsMiddleware, settings=settings, metrics=metrics)  # innermost first
    app.add_middleware(AuthMiddleware, keys=keys)
    app.add_middleware(ErrorMiddleware)
    app.add_middleware(MessageErrorsMiddleware)
    app.add_middleware(SecurityHeadersMiddleware)
    app.add_middleware(MetricsMiddleware, metrics=metrics, paths=PATHS)
    return app


def _upstream(settings: ServerSettings, keys: Keys, moderator: Moderator) -> Upstream | None:
    if settings.upstream is None:
        return None
    return Upstream(settings, key=keys.upstream, consumed=bool(keys.proxy), moderator=moderator)


def _playground_routes() -> APIRouter:
    router = APIRouter()
    add_files(router, PLAYGROUND)
    return router


def _answer_head(router: APIRouter) -> None:
    """Has every path that answers GET answer HEAD, as HTTP wants it; the server leaves the body out."""
    for route in router.routes:
        if isinstance(route, Route) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")
