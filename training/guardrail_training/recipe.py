"""Reads a recipe: a TOML file into one settings dataclass, where an unknown key is an error that names it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from guardrail.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["parse_changes", "read_recipe"]

Settings = TypeVar("Settings")


def read_recipe(
    path: str | Path | None, *, settings: type[Settings], overrides: Mapping[str, Any]
) -> Settings:
    """Settings from a recipe, under the overrides that are not None; without a path, from the overrides.

    Raises ConfigError for an unreadable file, and for an unknown, missing or wrongly typed key.
    """
    where = str(path) if path else "command line"
    values = _load(Path(path)) if path else {}
    values |= {key: value for key, value in overrides.items() if value is not None}
    known = fields(settings)  # type: ignore[arg-type]  # a TypeVar cannot say that it is a dataclass
    names = {field.name for field in known}
    if unknown := sorted(set(values) - names):
        raise ConfigError(
            f"{where}: unknown key {', '.join(unknown)}; known keys are {', '.join(sorted(names))}"
        )
    required = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - set(values)):
        raise ConfigError(f"{where}: missing key {', '.join(missing)}")
    hints = get_type_hints(settings)
    return settings(
        **{key: _typed(value, hints[key], f"{where}: key {key}") for key, value in values.items()}
    )


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Overrides from ``KEY=VALUE`` arguments; a value that is not TOML is taken as a string."""
    parsed: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(f"--set needs KEY=VALUE, got {change!r}")
        try:
            parsed[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed[key] = value
    return parsed


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no recipe {path}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _typed(value: Any, hint: Any, where: str) -> Any:
    # TOML has no paths, no tuples, and writes 1.0 as 1 where its author is in a hurry.
    accepted = get_args(hint) if type(None) in get_args(hint) else (hint,)
    if isinstance(value, list):
        value = tuple(value)
    if Path in accepted and isinstance(value, str):
        return Path(value)
    if float in accepted and type(value) is int:
        return float(value)
    for kind in accepted:
        if kind == tuple[str, ...] and isinstance(value, tuple) and all(isinstance(v, str) for v in value):
            return value
        if type(value) is kind:
            return value
    expected = " or ".join(
        getattr(kind, "__name__", str(kind)) for kind in accepted if kind is not type(None)
    )
    raise ConfigError(f"{where} must be {expected}, got {type(value).__name__}")
