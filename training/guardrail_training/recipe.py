"""Reads a recipe: a TOML file into one settings dataclass, where an unknown key is an error that names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from guardrail.config.settings import toml_or_text, typed
from guardrail.errors import ConfigError
from guardrail.models.files import read_toml

__all__ = ["check_values", "parse_changes", "read_recipe"]

Settings = TypeVar("Settings")


def read_recipe(
    path: str | Path | None, *, settings: type[Settings], overrides: Mapping[str, Any]
) -> Settings:
    """Settings from a recipe, under the overrides that are not None; without a path, from the overrides.

    Raises ConfigError for an unreadable file, and for an unknown, missing or wrongly typed key.
    """
    where = str(path) if path else "command line"
    values = read_toml(Path(path)) if path else {}
    values |= {key: value for key, value in overrides.items() if value is not None}
    fitted = typed(settings, values, where=where, folder=Path())
    known = fields(settings)  # type: ignore[arg-type]  # a TypeVar cannot say that it is a dataclass
    required = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - set(values)):
        raise ConfigError(f"{where}: missing key {', '.join(missing)}")
    return settings(**fitted)


def parse_changes(changes: Sequence[str]) -> dict[str, Any]:
    """Overrides from ``KEY=VALUE`` arguments; a value that is not TOML is taken as a string."""
    parsed: dict[str, Any] = {}
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ConfigError(f"--set needs KEY=VALUE, got {change!r}")
        parsed[key] = toml_or_text(value)
    return parsed


def check_values(
    settings: object,
    *,
    at_least_one: Sequence[str] = (),
    positive: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    shares: Sequence[str] = (),
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Raises ConfigError that names the first setting outside its range; None is within any."""
    _require(settings, at_least_one, lambda value: value >= 1, "be at least 1")
    _require(settings, positive, lambda value: 0 < value < math.inf, "be positive")
    _require(settings, not_negative, lambda value: 0 <= value < math.inf, "not be negative")
    _require(settings, shares, lambda value: 0 <= value <= 1, "be between 0 and 1")
    for key, known in (choices or {}).items():
        if (value := getattr(settings, key)) not in known:
            raise ConfigError(f"{key} must be one of {', '.join(known)}, got {value!r}")


def _require(settings: object, keys: Sequence[str], holds: Callable[[float], bool], expected: str) -> None:
    for key in keys:
        if (value := getattr(settings, key)) is not None and not holds(value):
            raise ConfigError(f"{key} must {expected}, got {value}")
