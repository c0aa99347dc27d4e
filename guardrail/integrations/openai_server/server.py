"""How the server runs and logs: uvicorn, lines for people or JSON."""

from __future__ import annotations

import json
import logging
import socket
import warnings
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG

from guardrail.config import ServerSettings
from guardrail.integrations.web.request_id import current_request_id
from guardrail.integrations.web.trace_context import current_trace

__all__ = ["JsonFormatter", "create_server", "log_warnings", "logging_config"]

GRACEFUL_SHUTDOWN_SECONDS = 30
"""Time that open streams get to end when the server is stopped."""

logger = logging.getLogger("guardrail.server")


class _Server(uvicorn.Server):
    """Says when it serves."""

    def __init__(self, config: uvicorn.Config, *, on_start: Callable[[], object] | None) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started and self._on_start is not None:
            self._on_start()


def create_server(
    app: FastAPI,
    settings: ServerSettings,
    *,
    on_start: Callable[[], object] | None = None,
    accepted_at_once: int = 2048,
) -> uvicorn.Server:
    """The server, not yet started. Uvicorn's own access log is off: addresses can hold text.

    It bounds the size of a request's head but not the seconds that a head takes: docs/server.md says what a
    reverse proxy before it has to do. ``accepted_at_once`` connections are taken before anything else is
    done: processes that share a socket leave the next ones to each other.
    """
    return _Server(
        uvicorn.Config(
            app,
            http="h11",  # which refuses a head that is not whole after 16 KiB
            host=settings.host,
            port=settings.port,
            log_config=logging_config(settings),
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_SECONDS,
            backlog=accepted_at_once,
        ),
        on_start=on_start,
    )


class JsonFormatter(logging.Formatter):
    """One object per line: ``time`` (UTC), ``level``, ``logger``, ``message``, ``exception`` if there is one.

    ``request_id`` is there while a request is answered, ``trace_id`` and ``span_id``
    if it belongs to a trace; a line of the access log has its fields, too.
    """

    def format(self, record: logging.LogRecord) -> str:
        row: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := current_request_id()) is not None:
            row["request_id"] = request_id
        if (trace := current_trace()) is not None:
            row |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
        row |= getattr(record, "guardrail_fields", {})
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
