"""JSON values of others: the strings in them that people could read, and the values without these."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Container, Iterator
from typing import Any

import numpy as np

from guardrail.integrations.strict_json import number_in
from guardrail.structured.identifiers import is_identifier

__all__ = [
    "CATEGORIES",
    "identifiers_in",
    "new_id",
    "only_numbers",
    "strings_in",
    "strings_in_json",
    "without_text",
]

_FLOAT_BYTES = 4
_NORMS = (1e-3, 1e3)
"""Lengths that an embedding may have: letters read as numbers are nearly always far outside."""
CATEGORIES = frozenset(
    {
        *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
        *("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors"),
        *("violence", "violence/graphic"),
    }
)
"""What OpenAI's moderations look for: names that speak of harm and do none."""


def only_numbers(value: object, *, clean: Container[str]) -> Any:
    """The value reduced to numbers, booleans and null under clean keys, such as a usage report."""
    if isinstance(value, dict):
        return {key: only_numbers(item, clean=clean) for key, item in value.items() if key in clean}
    return value if isinstance(value, bool) else number_in(value)


def without_text(value: object, *, clean: Container[str]) -> Any:
    """The value without any text: clean identifiers and packed numbers stay, other strings are null.

    For answers that are not generated text: lists of models, scores, embeddings (base64 of 32-bit floats).
    """
    if isinstance(value, dict):
        return {key: without_text(item, clean=clean) for key, item in value.items() if key in clean}
    if isinstance(value, list):
        return [without_text(item, clean=clean) for item in value]
    if isinstance(value, str):
        return value if value in clean or _is_packed(value) else None
    return value


def strings_in_json(source: str) -> list[str]:
    """Every string in a JSON text, keys and repeated keys included; the text itself if it is not JSON.

    What a client decodes is judged, because ``\\u0061`` hides a letter from whoever reads the text as it is.
    """
    try:
        value = json.loads(source, object_pairs_hook=_Pairs)
        return list(strings_in(value))
    except (ValueError, RecursionError):
        return [source]


class _Pairs(list[tuple[str, Any]]):
    """An object's members as they stand: a dict would drop all but the last of equal keys."""


def strings_in(value: object) -> Iterator[str]:
    """Every string of a JSON value, keys included."""
    if isinstance(value, str):
        # JSON inside JSON is decoded by whoever gets it, too.
        yield from strings_in_json(value) if value.lstrip().startswith(("{", "[")) else (value,)
    elif isinstance(value, (dict, _Pairs)):
        for key, item in value.items() if isinstance(value, dict) else value:
            yield key
            yield from strings_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings_in(item)


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
    return bool(_NORMS[0] <= length <= _NORMS[1])  # false for a length that is NaN


def identifiers_in(value: object) -> list[str]:
    """Every key and every string of a JSON value that is an identifier, each once."""
    found: dict[str, None] = {}
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            found |= {part: None} if is_identifier(part) else {}
        elif isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, list):
            waiting += part
    return list(found)


def new_id(prefix: str) -> str:
    """An id that nobody has yet, in place of one that cannot be shown."""
    return prefix + secrets.token_hex(12)
