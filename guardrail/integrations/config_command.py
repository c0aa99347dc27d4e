"""``guardrail config show|check``: the configuration as it takes effect, and whether it can."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from guardrail.config import SECTIONS, Config, PolicyRule
from guardrail.config.settings import hints_of, takes_text
from guardrail.errors import UsageError
from guardrail.guard import Guard

__all__ = ["ConfigOption", "MonitorOption", "config_app", "rendered", "with_monitor"]

# Whoever may read a log of this command may not log in to the database: all that stands before the @ goes,
# and every parameter that sounds like a secret.
_SECRET = re.compile(r"(?<=://).*(?=@)|(?<=[?&])(\w*(?:pass|key|secret|token)\w*=)[^&#]*", re.IGNORECASE)

config_app = typer.Typer(no_args_is_help=True, help="The configuration file.")
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="A TOML file; see 'guardrail config show'.", show_default=False),
]
MonitorOption = Annotated[
    bool,
    typer.Option("--monitor", help="Judge and record, and change nothing: enforce = false in [policy]."),
]
Source = Annotated[
    Path | None,
    typer.Argument(help="A TOML file; if omitted, the one that GUARDRAIL_CONFIG names.", show_default=False),
]


def with_monitor(config: Config, *, monitor: bool) -> Config:
    """The configuration in monitor mode, if the command line asks for that."""
    return replace(config, policy=replace(config.policy, enforce=False)) if monitor else config


@config_app.command()
def show(path: Source = None, *, config: ConfigOption = None) -> None:
    """Prints every setting as TOML with where it was set; passwords in URLs are left out."""
    typer.echo(rendered(_loaded(path, config)), nl=False)


@config_app.command()
def check(path: Source = None, *, config: ConfigOption = None) -> None:
    """Reads the configuration and opens its models; status 2 for a wrong key or value, 1 for a model."""
    loaded = _loaded(path, config)
    guard = Guard.from_config(loaded, audit=None)
    typer.echo(f"ok: {len(loaded.origins)} settings, policy {guard.policy.digest()}", err=True)


def _loaded(path: Path | None, option: Path | None) -> Config:
    """The configuration of the one file that is named, as an argument or by --config."""
    if path is not None and option is not None:
        raise UsageError("name one configuration file: as PATH or with --config, not both")
    return Config.load(path or option)


def rendered(config: Config) -> str:
    """The configuration as a TOML document, every value with where it was set."""
    return "\n".join(line for section in SECTIONS for line in _section(section, config)) + "\n"


def _section(section: str, config: Config) -> Iterator[str]:
    settings = getattr(config, section)
    hints = hints_of(SECTIONS[section])
    yield f"[{section}]"
    for field in fields(settings):
        value = getattr(settings, field.name)
        origin = config.origins.get(f"{section}.{field.name}", "default")
        # TOML has no null: "none" stands for it, except for free text.
        is_left_out = value is None and takes_text(hints[field.name])
        line = f"# {field.name}" if is_left_out else f"{field.name} = {_toml(value)}"
        yield f"{line:<60} # {origin}"
    yield ""


def _toml(value: Any) -> str:
    if isinstance(value, PolicyRule):
        value = value.as_table()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (str, Path)):
        # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
        return json.dumps(_SECRET.sub(r"\1***", str(value)), ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps("none" if value is None else value)
