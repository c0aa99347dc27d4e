"""JSON that comes over the wire: read strictly, and stripped to what cannot carry text."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Container, Iterator
from typing import Any, NoReturn, TypeGuard

import numpy as np

from guardrail.structured.identifiers import is_identifier

__all__ = [
    "JsonObject",
    "MalformedError",
    "dumps",
    "inert",
    "leaves",
    "loads",
    "number_in",
    "numbers",
    "parse",
    "strings_of",
]

JsonObject = dict[str, Any]

_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_FLOAT_BYTES = 4
MAX_NESTING = 200
"""Levels of objects and lists that are read; what walks over a value may recurse that often."""
_NORMS = (1e-3, 1e3)
"""Lengths that an embedding may have: letters read as numbers are nearly always far outside."""


class MalformedError(ValueError):
    """Bytes from the network are not what they should be; the message holds none of them."""


def loads(content: bytes | str) -> Any:
    """The JSON value; MalformedError for anything else: NaN, numbers beyond a float's, deep nesting."""
    try:
        value = json.loads(content, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise MalformedError("not valid JSON") from None
    if _is_deeper(value, MAX_NESTING):
        raise MalformedError("JSON that is nested too deeply")
    return value


def parse(content: bytes | str) -> JsonObject:
    """The JSON object; MalformedError for anything else."""
    value = loads(content)
    if not isinstance(value, dict):
        raise MalformedError("not a JSON object")
    return value


def dumps(value: object) -> str:
    """The value as compact ASCII JSON, so that lone surrogates survive too."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def numbers(value: object, *, clean: Container[str]) -> Any:
    """The value reduced to numbers, booleans and null under clean keys, such as a usage report."""
    if isinstance(value, dict):
        return {key: numbers(item, clean=clean) for key, item in value.items() if key in clean}
    return value if isinstance(value, bool) else number_in(value)


def number_in(value: object) -> int | float | None:
    """The number, or the one that a string writes out; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value) if "." in value else int(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def inert(value: object, *, clean: Container[str]) -> Any:
    """The value without any text: clean identifiers and packed numbers stay, other strings are null.

    For answers that are no generated text: lists of models, scores, embeddings (base64 of 32-bit floats).
    """
    if isinstance(value, dict):
        return {key: inert(item, clean=clean) for key, item in value.items() if key in clean}
    if isinstance(value, list):
        return [inert(item, clean=clean) for item in value]
    if isinstance(value, str):
        return value if value in clean or _is_packed(value) else None
    return value


def strings_of(source: str) -> list[str]:
    """Every string in a JSON text, keys and repeated keys included; the text itself if it is not JSON.

    What a client decodes is judged, because ``\\u0061`` hides a letter from whoever reads the text as it is.
    """
    try:
        value = json.loads(source, object_pairs_hook=_Pairs)
        return list(leaves(value))
    except (ValueError, RecursionError):
        return [source]


class _Pairs(list[tuple[str, Any]]):
    """An object's members as they stand: a dict would drop all but the last of equal keys."""


def leaves(value: object) -> Iterator[str]:
    """Every string of a JSON value, keys included."""
    if isinstance(value, str):
        # JSON inside JSON is decoded by whoever gets it, too.
        yield from strings_of(value) if value.lstrip().startswith(("{", "[")) else (value,)
    elif isinstance(value, (dict, _Pairs)):
        for key, item in value.items() if isinstance(value, dict) else value:
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)


def _is_packed(value: str) -> bool:
    """True for an embedding: what is as short as an identifier is judged as one."""
    if is_identifier(value):
        return False
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    if not content or len(content) % _FLOAT_BYTES:
        return False
    length = np.linalg.norm(np.frombuffer(content, dtype="<f4").astype(np.float64))
    return bool(_NORMS[0] <= length <= _NORMS[1])  # false for a length that is no number


def _refuse(constant: str) -> NoReturn:
    raise ValueError("not JSON")


def _finite(digits: str) -> float:
    """The number; ValueError for one such as 1e999, which could not be written again."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("beyond a float")
    return number


def _is_deeper(value: object, levels: int) -> bool:
    """True where objects and lists are nested more than ``levels`` deep."""
    nested = [value]
    for _ in range(levels + 1):
        inner = [part.values() if isinstance(part, dict) else part for part in nested if _is_nesting(part)]
        nested = [part for parts in inner for part in parts]
    return any(map(_is_nesting, nested))


def _is_nesting(value: object) -> TypeGuard[dict[str, object] | list[object]]:
    return isinstance(value, (dict, list))
