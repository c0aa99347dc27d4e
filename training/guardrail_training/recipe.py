"""Recipes: TOML files of settings, those of this package by name; unknown keys are errors that name them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from guardrail.config.settings import key_error, toml_or_text, typed
from guardrail.errors import ConfigError, UsageError
from guardrail.models.files import read_toml
from guardrail_training.outputs import require_writable
from guardrail_training.settings import former_names

__all__ = [
    "SHIPPED",
    "Recipe",
    "check_values",
    "copy_recipe",
    "parse_changes",
    "read_recipe",
    "recipe_file",
    "shipped_recipes",
]

Settings = TypeVar("Settings")
SHIPPED = Path(__file__).parent / "recipes"
TRAINERS = ("sft", "preference", "ppo", "regularized")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One of the package's recipes; its first comment says what it is for."""

    name: str
    trainer: str
    path: Path

    @property
    def purpose(self) -> str:
        """The first sentence of its comment."""
        lines = self.path.read_text(encoding="utf-8").splitlines()
        comment = " ".join(line.lstrip("# ") for line in lines if line.startswith("#"))
        return comment.partition(". ")[0].partition(": ")[0].rstrip(".:")


def shipped_recipes() -> list[Recipe]:
    """The recipes of this package, trainer by trainer."""
    return [
        Recipe(path.stem, trainer, path)
        for trainer in TRAINERS
        for path in sorted((SHIPPED / trainer).glob("*.toml"))
    ]


def recipe_file(name: str | Path) -> Path:
    """A recipe of this package by its name, or else the file; ConfigError for a name that is neither."""
    path = Path(name)
    if path.suffix or len(path.parts) > 1:
        return path
    known = {recipe.name: recipe.path for recipe in shipped_recipes()}
    if str(name) not in known:
        if path.is_file():
            return path
        raise key_error(str(name), known, where="--recipe", kind="recipe")
    return known[str(name)]


def copy_recipe(name: str, to: str | Path) -> Path:
    """Writes a recipe into a new file, to be changed there; UsageError if the file exists."""
    to = Path(to)
    if to.exists():
        raise UsageError(f"{to} exists: choose another file")
    require_writable(to)
    to.write_text(recipe_file(name).read_text(encoding="utf-8"), encoding="utf-8")
    return to


def read_recipe(
    path: str | Path | None, *, settings: type[Settings], overrides: Mapping[str, Any]
) -> Settings:
    """Settings from a recipe (a name or a file) under the overrides that are not None; or from these alone.

    A key's former name is read too, with a FutureWarning that gives the present one. Raises ConfigError for
    an unreadable file, and for an unknown, missing or wrongly typed key.
    """
    where = str(path) if path else "command line"
    given = {key: value for key, value in overrides.items() if value is not None}
    values = _renamed(read_toml(recipe_file(path)), settings, where=where) if path else {}
    values |= _renamed(given, settings, where="command line")
    fitted = typed(settings, values, where=where, folder=Path())
    known = fields(settings)  # type: ignore[arg-type]  # a TypeVar cannot say that it is a dataclass
    required = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - set(values)):
        raise ConfigError(f"{where}: missing key {', '.join(missing)}")
    return settings(**fitted)


def _renamed(values: Mapping[str, Any], settings: type[Any], *, where: str) -> dict[str, Any]:
    """The values by the present names of the settings; ConfigError if one is given under both names."""
    present = former_names(settings)
    for key in values.keys() & present.keys():
        if present[key] in values:
            raise ConfigError(f"{where}: {key} is the former name of {present[key]}; keep one of the two")
        warnings.warn(
            f"{where}: {key} is now called {present[key]}; the next release no longer reads the former name",
            FutureWarning,
            stacklevel=3,
        )
    return {present.get(key, key): value for key, value in values.items()}


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
