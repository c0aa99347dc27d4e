"""Runs the server of a configuration until it is told to stop."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from guardrail.config import Config, ServerSettings
from guardrail.guard import Guard
from guardrail.integrations.audit.keys import Reviewers
from guardrail.integrations.audit.routes import audit_routes
from guardrail.integrations.openai_server.app import create_app
from guardrail.integrations.openai_server.heads import protocol_of
from guardrail.integrations.openai_server.keys import Keys, require_safe_address
from guardrail.integrations.openai_server.logs import log_warnings, logging_config

__all__ = ["run", "server_of"]

GRACE = 30
"""Seconds that open streams get to end when the server is told to stop."""


def run(config: Config) -> None:
    """Serves until a signal ends it. ConfigError: the address needs keys and there are none."""
    settings, keys = config.server, Keys.from_environment()
    require_safe_address(settings.host, keys)
    if config.audit.url is None:
        app = create_app(Guard.from_config(config), settings=settings, keys=keys)
    else:
        store = config.audit.open()
        reviewers = Reviewers.from_environment()
        guard = Guard.from_config(config, audit=store)
        routers = [audit_routes(store.database, reviewers, guard=guard)]
        app = create_app(guard, settings=settings, keys=keys, routers=routers)
    log_warnings()
    server_of(app, settings).run()


def server_of(app: FastAPI, settings: ServerSettings) -> uvicorn.Server:
    """The server, not yet started. It logs no addresses that were asked for, since those can hold text."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol_of(settings.body_timeout),
            host=settings.host,
            port=settings.port,
            log_config=logging_config(settings),
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=GRACE,
        )
    )
