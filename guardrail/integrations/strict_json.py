"""JSON from the network, read strictly: values, objects and the fields of objects."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, TypeGuard

__all__ = [
    "JsonObject",
    "MalformedError",
    "dumps",
    "index_in",
    "loads",
    "number_in",
    "object_in",
    "parse",
    "string_in",
]

JsonObject = dict[str, Any]
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?", re.ASCII)
MAX_NESTING = 200
"""Levels of objects and lists that are read; what walks over a value may recurse that often."""
MAX_CHOICES = 128


class MalformedError(ValueError):
    """Bytes from the network are not what they should be; the message holds none of them."""


def loads(content: bytes | str) -> Any:
    """The JSON value; MalformedError for anything else: NaN, numbers beyond a float's, deep nesting."""
    try:
        text = _decoded(content)
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise MalformedError("not valid JSON") from None
    if text.count("{") + text.count("[") > MAX_NESTING and _is_deeper(value, MAX_NESTING):
        raise MalformedError("JSON that is nested too deeply")
    return value


def _decoded(content: bytes | str) -> str:
    """The characters of a JSON text, as ``json.loads`` takes them; ValueError for a byte order mark."""
    if isinstance(content, bytes):
        return content.decode(json.detect_encoding(content), "surrogatepass")
    if content.startswith("\ufeff"):
        raise ValueError("a byte order mark")
    return content


def parse(content: bytes | str) -> JsonObject:
    """The JSON object; MalformedError for anything else."""
    value = loads(content)
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object")
    return value


def dumps(value: object) -> str:
    """The value as compact ASCII JSON, so that lone surrogates survive too."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def number_in(value: object) -> int | float | None:
    """The number, or the one that a string writes out; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _refuse(constant: str) -> NoReturn:
    raise ValueError("not JSON")


def _finite(digits: str) -> float:
    """The number; ValueError for one such as 1e999, which could not be written again."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("beyond a float")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
"""Made once: ``json.loads`` makes one for each call that has these hooks."""


def _is_deeper(value: object, levels: int) -> bool:
    """True if objects and lists are nested more than ``levels`` deep."""
    nested = [value]
    for _ in range(levels + 1):
        if not nested:
            return False
        inner = [part.values() if isinstance(part, dict) else part for part in nested if _is_nesting(part)]
        nested = [part for parts in inner for part in parts]
    return any(map(_is_nesting, nested))


def _is_nesting(value: object) -> TypeGuard[dict[str, object] | list[object]]:
    return isinstance(value, (dict, list))


def index_in(part: JsonObject, *, default: int = 0) -> int:
    """The index of a choice or of a fragment of a call, as a number or as its digits."""
    index = part.get("index")
    if index is None:
        return default
    index = number_in(index)
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    if type(index) is not int or not 0 <= index < MAX_CHOICES:
        raise MalformedError(f"an index is not a number below {MAX_CHOICES}")
    return index


def object_in(part: JsonObject, name: str | None) -> JsonObject:
    """The object under a name, empty if there is none; the part itself if there is no name.

    Some languages write an empty object as an empty list, others as an empty string.
    """
    found = part if name is None else part.get(name)
    if not found:
        return {}
    if not isinstance(found, dict):
        raise MalformedError(f"{name} is not an object")
    return found


def string_in(part: JsonObject, name: str) -> str:
    """The string under a name, empty if there is none."""
    found = part.get(name)
    if not found:
        return ""
    if not isinstance(found, str):
        raise MalformedError(f"{name} is not a string")
    return found
