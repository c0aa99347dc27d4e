"""The configured server as an ASGI application, for any ASGI server: ``uvicorn --factory MODULE:create_app``.

    uvicorn --factory guardrail.integrations.asgi:create_app --workers 2 --http h11 --no-access-log
    gunicorn -k uvicorn_worker.UvicornWorker 'guardrail.integrations.asgi:create_app()'

Configuration comes from ``GUARDRAIL_CONFIG`` and the other variables of ``guardrail.config``; where to listen
and how many processes there are is the ASGI server's part. For ``/metrics`` over all of its processes set
``PROMETHEUS_MULTIPROC_DIR`` to an empty folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardrail.config import Config
from guardrail.guard import Guard
from guardrail.integrations.openai_server import Keys
from guardrail.integrations.openai_server import create_app as create_server_app
from guardrail.integrations.web.auth import require_safe_address

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["configured_app", "create_app"]


def create_app() -> FastAPI:
    """The application as file and environment configure it.

    ConfigError: they are wrong, or the server that is configured can be reached from elsewhere without keys.
    """
    return configured_app(Config.load())


def configured_app(config: Config, *, load: bool = False) -> FastAPI:
    """The application of a configuration; with ``load`` its models are in memory before anybody asks."""
    settings, keys = config.server, Keys.from_environment()
    require_safe_address(settings.host, keys)
    if config.audit.url is None:
        guard, routers = Guard.from_config(config), []
    else:
        from guardrail.integrations.audit.routes import audit_routes
        from guardrail.integrations.web.auth import Reviewers

        store = config.audit.open()
        guard = Guard.from_config(config, audit=store)
        routers = [audit_routes(store.database, Reviewers.from_environment(), guard=guard)]
    app = create_server_app(guard, settings=settings, keys=keys, routers=routers)
    if load:
        guard.load()
    return app
