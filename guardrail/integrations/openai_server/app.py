"""The server put together: routes inside, and around them limits, keys, measurement and error handling."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from guardrail.config import ServerSettings
from guardrail.guard import Guard
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.openai_server.guard_api import Policies, own_routes
from guardrail.integrations.openai_server.health import Readiness, health_routes
from guardrail.integrations.openai_server.limits import Limits
from guardrail.integrations.openai_server.metrics import Measured, Metrics
from guardrail.integrations.openai_server.playground import FILES, page_routes
from guardrail.integrations.openai_server.proxy import Proxy, completion_routes
from guardrail.integrations.openai_server.upstream import Upstream
from guardrail.integrations.web.auth import Doorkeeper, Keys
from guardrail.integrations.web.errors import ApiError, Sealed, http_error, invalid_request

__all__ = [
    "create_app",
]

PATHS = frozenset(
    {
        *("/v1/chat/completions", "/v1/completions", "/v1/moderations", "/v1/embeddings", "/v1/models"),
        *("/v1/detoxify", "/healthz", "/readyz", "/metrics", *FILES),
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
    moderator = Moderator(guard, metrics)
    upstream = _upstream(settings, keys, moderator)
    proxy = Proxy(upstream, moderator, metrics, settings)
    readiness = Readiness(guard)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(readiness.prepare)
            yield
            tasks.cancel_scope.cancel()  # a server that is told to stop does not finish loading
        if upstream is not None:
            await upstream.aclose()

    # Documentation pages would load their scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    for router in (
        own_routes(proxy, Policies(moderator, metrics)),
        completion_routes(proxy),
        health_routes(readiness, metrics),
        page_routes(),
        *routers,
    ):
        _answer_head(router)
        app.include_router(router)
    app.add_exception_handler(ApiError, _told)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_middleware(Limits, settings=settings, metrics=metrics)  # innermost first
    app.add_middleware(Doorkeeper, keys=keys)
    app.add_middleware(Sealed)
    app.add_middleware(Measured, metrics=metrics, paths=PATHS)
    return app


def _upstream(settings: ServerSettings, keys: Keys, moderator: Moderator) -> Upstream | None:
    if settings.upstream is None:
        return None
    return Upstream(settings, key=keys.upstream, consumed=bool(keys.proxy), moderator=moderator)


def _answer_head(router: APIRouter) -> None:
    """Has every path that answers GET answer HEAD, as HTTP wants it; the server leaves the body out."""
    for route in router.routes:
        if isinstance(route, Route) and route.methods and "GET" in route.methods:
            route.methods.add("HEAD")


def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.reply()
