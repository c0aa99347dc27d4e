"""How the server runs and logs: uvicorn, lines for people or JSON."""

from __future__ import annotations

import json
import logging
import warnings
from datetime import datetime, timezone
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from guardrail.config import Config, ServerSettings
from guardrail.guard import Guard
from guardrail.integrations.audit.routes import audit_routes
from guardrail.integrations.openai_server.app import create_app
from guardrail.integrations.openai_server.heads import protocol_of
from guardrail.integrations.web.auth import Keys, Reviewers, require_safe_address

__all__ = [
    "JsonFormatter",
    "log_warnings",
    "logging_config",
    "run",
    "server_of",
]

GRACE = 30
"""Seconds that open streams get to end when the server is told to stop."""

logger = logging.getLogger("guardrail.server")


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


class JsonFormatter(logging.Formatter):
    """One object per line: ``time`` (UTC), ``level``, ``logger``, ``message``, and ``exception`` if there is
    one.
    """

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row)


def logging_config(settings: ServerSettings) -> dict[str, Any]:
    """For ``logging.config``: outcomes that changed something, failures, and what uvicorn has to say."""
    level = settings.log_level.upper()
    config: dict[str, Any] = {
        **LOGGING_CONFIG,
        "loggers": {name: {**each, "level": level} for name, each in LOGGING_CONFIG["loggers"].items()}
        | {"guardrail": {"handlers": ["default"], "level": level, "propagate": False}},
    }
    if settings.log_json:
        formatter = {"()": f"{__name__}.{JsonFormatter.__name__}"}
        config["formatters"] = dict.fromkeys(LOGGING_CONFIG["formatters"], formatter)
    return config


def log_warnings() -> None:
    """Lets Python's warnings be logged, without the line of code that gave them."""

    def log(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:
        logger.warning("%s", message)

    warnings.showwarning = log
