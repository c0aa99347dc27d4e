"""``guardrail serve``: the proxy, the guard's own paths and the playground page on one address."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from guardrail.integrations.audit.option import AuditOption, AuditTextOption, with_audit
from guardrail.integrations.config_command import ConfigOption

__all__ = ["serve"]


def serve(
    *,
    upstream: Annotated[
        str | None,
        typer.Option(help="The OpenAI-compatible API to stand before, such as http://127.0.0.1:8000/v1."),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Where to listen; 127.0.0.1 if omitted.")] = None,
    port: Annotated[int | None, typer.Option(help="8080 if omitted; 0 takes a free one.")] = None,
    allow_field: Annotated[
        list[str] | None, typer.Option(help="A field of messages to pass on, moderated; repeatable.")
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
    from guardrail.integrations.openai_server.serving import run

    loaded = with_audit(Config.load(config), audit, include_text=audit_text)
    chosen: dict[str, Any] = {
        "upstream": upstream,
        "host": host,
        "port": port,
        "allowed_fields": tuple(allow_field) if allow_field else None,
    }
    changes = {name: value for name, value in chosen.items() if value is not None}
    run(replace(loaded, server=replace(loaded.server, **changes)))
