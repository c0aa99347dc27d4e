"""Reads a recipe: a TOML file into one settings dataclass, where an unknown key is an error that names it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from guardrail.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_recipe"]

Settings = TypeVar("Settings")


def read_recipe(path: str | Path | None, *, settings: type[Settings], overrides: Mapping[str, Any]) -> Settings:
    """Settings from a recipe, with the overrides that are not None laid over it; no path means overrides alone.

    Raises ConfigError for an unreadable file, and for an unknown, missing or wrongly typed key.
    """
    where = str(path) if path else "command line"
    values = _load(Path(path)) if path else {}
    values |= {key: value for key, value in overrides.items() if value is not None}
    known = {field.name: field for field in fields(settings)}  # type: ignore[arg-type]  # a dataclass by contract
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; known keys are {', '.join(sorted(known))}")
    missing = sorted(
        name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING and name not in values
    )
    if missing:
        raise ConfigError(f"{where}: missing key {', '.join(missing)}")
    hints = get_type_hints(settings)
    return settings(**{key: _typed(value, key=key, hint=hints[key], where=where) for key, value in values.items()})


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"no recipe {path}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _typed(value: Any, *, key: str, hint: Any, where: str) -> Any:
    if isinstance(value, list):
        value = tuple(value)
    if hint is float and type(value) is int:
        return float(value)
    accepted = {
        int: type(value) is int,
        float: type(value) is float,
        bool: type(value) is bool,
        str: isinstance(value, str),
        tuple[str, ...]: isinstance(value, tuple) and all(isinstance(item, str) for item in value),
    }
    if accepted.get(hint, True):
        return value
    name = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
    raise ConfigError(f"{where}: key {key} must be {name}, got {type(value).__name__}")
