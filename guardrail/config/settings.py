"""Values from TOML and environment variables into settings dataclasses; every error names the key."""

from __future__ import annotations

import difflib
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from guardrail.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Url", "hints_of", "key_error", "takes_text", "toml_or_text", "typed", "value_of"]

Url = NewType("Url", str)
"""A string with a scheme and ``://``; tells a URL from a path where a setting takes either."""

_MISFIT = object()
_NAMES: dict[Any, str] = {
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    str: "a string",
    Path: "a path",
    Url: "a URL",
    type(None): "'none'",
}


def typed(kind: type, values: Mapping[str, Any], *, where: str, folder: Path) -> dict[str, Any]:
    """The values as the fields of the settings dataclass ``kind`` want them.

    Relative paths are taken from ``folder``. A string ``"none"`` stands for None if a setting may be None
    and is not free text. Raises ConfigError for an unknown key and for a value of the wrong type; ``where``
    begins its message.
    """
    hints = hints_of(kind)
    for key in values:
        if key not in hints:
            raise key_error(key, hints, where=where)
    return {key: _fitted(value, hints[key], f"{where}: {key}", folder) for key, value in values.items()}


def hints_of(kind: type) -> dict[str, Any]:
    """The type of each field of a settings dataclass."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def key_error(key: str, known: Iterable[str], *, where: str, kind: str = "key") -> ConfigError:
    """The error for a key, or another kind of name, that is not among the known ones; with the nearest."""
    known = sorted(known)
    near = difflib.get_close_matches(key, known, n=1)
    guess = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return ConfigError(f"{where}: unknown {kind} {key!r}; {guess}")


def value_of(source: str, hint: Any) -> Any:
    """The value of an environment variable or option: the string itself if a string will do, else what it
    is in TOML. A list needs no brackets and no quotes (``mask,block``), a table no braces (``threat = 0.5``).
    """
    kinds = _kinds(hint)
    if any(_is_text(kind) for kind in kinds):
        return source
    value = toml_or_text(source)
    for kind in kinds:
        if get_origin(kind) is tuple and not isinstance(value, list):
            return _listed(source, get_args(kind)[0])
        if _is_table(kind) and not isinstance(value, dict):
            table = toml_or_text(f"{{{source}}}")
            return table if isinstance(table, dict) else value
    return value


def _listed(source: str, hint: Any) -> list[Any]:
    """The items of a list that is written without its brackets, or without quotes."""
    whole = toml_or_text(f"[{source}]")
    if isinstance(whole, list):
        return whole
    parts = source.strip().removeprefix("[").removesuffix("]").split(",")
    return [value_of(part.strip(), hint) for part in parts if part.strip()]


def toml_or_text(source: str) -> Any:
    """What a value is in TOML; the string itself if it is none."""
    try:
        return tomllib.loads(f"value = {source}")["value"]
    except tomllib.TOMLDecodeError:
        return source


def takes_text(hint: Any) -> bool:
    """True if any string will do, so that "none" is a string like others."""
    return str in _kinds(hint)


def _is_text(kind: Any) -> bool:
    return kind in (str, Path, Url) or get_origin(kind) is Literal


def _is_table(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fitted(value: Any, hint: Any, where: str, folder: Path) -> Any:
    kinds = _kinds(hint)
    if value == "none" and type(None) in kinds and not takes_text(hint):
        return None
    for kind in kinds:
        fitted = _as(value, kind, where, folder)
        if fitted is not _MISFIT:
            return fitted
    expected = " or ".join(_named(kind) for kind in kinds if not (kind is type(None) and str in kinds))
    raise ConfigError(f"{where} must be {expected}, got {_got(value, kinds)}")


def _as(value: Any, kind: Any, where: str, folder: Path) -> Any:
    """The value as one kind of type, or _MISFIT."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        return value if value in arguments and isinstance(value, str) else _MISFIT
    if kind in (Path, Url, float) or hasattr(kind, "from_table"):
        return _as_single(value, kind, where, folder)
    if origin is tuple and isinstance(value, (list, tuple)):
        items = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) != len(value):
            return _MISFIT
        return tuple(_fitted(item, hint, where, folder) for item, hint in zip(value, items, strict=True))
    if _is_table(kind):
        if not isinstance(value, dict):
            return _MISFIT
        return {key: _fitted(item, arguments[1], f"{where}.{key}", folder) for key, item in value.items()}
    return value if type(value) is kind else _MISFIT


def _as_single(value: Any, kind: Any, where: str, folder: Path) -> Any:
    """The value as a path, a URL, a number or what a class makes of a table, or _MISFIT."""
    if kind is Path and isinstance(value, str) and value and "://" not in value:
        return folder / Path(value).expanduser()
    if kind is Url and isinstance(value, str) and "://" in value:
        return value
    if kind is float and type(value) in (int, float):
        return float(value)
    if hasattr(kind, "from_table") and isinstance(value, dict):
        return kind.from_table(value, where=where)
    return value if type(value) is kind else _MISFIT


def _named(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        items = get_args(kind)
        each = _named(items[0])
        return f"a list, each {each}" if items[-1] is Ellipsis else f"a list of {len(items)}, each {each}"
    if get_origin(kind) is not None:
        return f"a table, each value {_named(get_args(kind)[1])}"
    return _NAMES.get(kind, str(kind))


def _got(value: Any, kinds: tuple[Any, ...]) -> str:
    """The value where it is one of few words, else its type: a setting may be a secret."""
    is_choice = isinstance(value, str) and all(get_origin(kind) is Literal for kind in kinds)
    return repr(value) if is_choice or isinstance(value, (bool, int, float)) else type(value).__name__
