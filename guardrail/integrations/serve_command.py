"""``guardrail serve``: the proxy, the guard's own paths and the playground page on one address."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guardrail.integrations.audit.option import AuditOption, AuditTextOption, with_audit
from guardrail.integrations.config_command import ConfigOption, MonitorOption, with_monitor

if TYPE_CHECKING:
    from guardrail.config import Config

__all__ = ["serve"]


class Level(str, Enum):
    """How grave a message must be to be logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"
    critical = "critical"


def serve(
    *,
    upstream: Annotated[
        str | None,
        typer.Option(help="The OpenAI-compatible API to stand before, such as http://127.0.0.1:8000/v1."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; 127.0.0.1 if omitted.")] = None,
    port: Annotated[int | None, typer.Option(help="8080 if omitted; 0 takes a free one.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that serve; 1 if omitted. SIGHUP replaces them, one after the other."),
    ] = None,
    allow_field: Annotated[
        list[str] | None, typer.Option(help="A field of messages to pass on, moderated; repeatable.")
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="A web page's origin that may ask for /v1/...; repeatable."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Add a field 'guardrail' to proxied answers: what was changed.")
    ] = False,
    monitor: MonitorOption = False,
    ladder: Annotated[
        str | None,
        typer.Option(
            metavar="STEPS", help="The steps to try: rewrite,mask,block or a part that ends with block."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Flag from this score on, 0..1; as the detector decides if omitted.")
    ] = None,
    log_level: Annotated[
        Level | None, typer.Option(help="Log this level and above; info if omitted.", show_default=False)
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log one JSON object per line.")] = False,
    otel: Annotated[
        bool, typer.Option("--otel", help="Send OpenTelemetry spans and metrics, as the OTEL_ variables say.")
    ] = False,
    access_log: Annotated[
        bool | None,
        typer.Option(
            "--access-log/--no-access-log",
            help="Log a line for each request, without text; on if omitted.",
            show_default=False,
        ),
    ] = None,
    audit: AuditOption = None,
    audit_text: AuditTextOption = False,
    config: ConfigOption = None,
) -> None:
    """Serves an OpenAI-compatible proxy whose answers are moderated, and a page to try the guard on.

    Clients' keys are in GUARDRAIL_PROXY_KEYS, separated by commas, the upstream's in GUARDRAIL_UPSTREAM_KEY.
    Without proxy keys the server listens on this machine alone and passes on what clients send. With an audit
    there is a page at /audit for who has one of GUARDRAIL_AUDIT_KEYS, written name=key.
    """
    from guardrail.config import Config

    chosen: dict[str, Any] = {
        "upstream": upstream,
        "host": host,
        "port": port,
        "workers": workers,
        "allowed_fields": tuple(allow_field) if allow_field else None,
        "cors": tuple(cors) if cors else None,
        "report": report or None,
        "access_log": access_log,
        "log_level": None if log_level is None else log_level.value,
        "log_json": log_json or None,
        "otel": otel or None,
    }
    changes = {name: value for name, value in chosen.items() if value is not None}

    def load() -> Config:
        loaded = with_audit(Config.load(config), audit, include_text=audit_text)
        loaded = with_monitor(_with_policy(loaded, ladder=ladder, threshold=threshold), monitor=monitor)
        return replace(loaded, server=replace(loaded.server, **changes))

    _run(load)


def _run(load: Callable[[], Config]) -> None:
    """Serves until a signal ends it. ConfigError: the address needs keys and there are none."""
    from guardrail.integrations.asgi import configured_app
    from guardrail.integrations.openai_server.server import create_server, log_warnings

    config = load()
    app = configured_app(config)
    log_warnings()
    if config.server.workers == 1:
        create_server(app, config.server).run()
        return
    from guardrail.integrations.workers import Supervisor

    raise typer.Exit(Supervisor(load, config.server.workers).run())


def _with_policy(config: Config, *, ladder: str | None, threshold: float | None) -> Config:
    """The configuration with what the command line says of the policy."""
    from guardrail.config.settings import hints_of, typed, value_of
    from guardrail.policy import Policy

    changes: dict[str, Any] = {} if threshold is None else {"threshold": threshold}
    if ladder is not None:
        value = {"ladder": value_of(ladder, hints_of(Policy)["ladder"])}
        changes |= typed(Policy, value, where="--ladder", folder=Path())
    return replace(config, policy=replace(config.policy, **changes)) if changes else config
