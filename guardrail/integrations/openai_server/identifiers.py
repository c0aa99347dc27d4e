"""Identifiers that an upstream chooses, such as ids, codes and keys: found in JSON, read as words."""

from __future__ import annotations

import re
import secrets

__all__ = ["CATEGORIES", "identifiers_in", "is_identifier", "new_id", "readings"]

CATEGORIES = frozenset(
    {
        *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
        *("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors"),
        *("violence", "violence/graphic"),
    }
)
"""What OpenAI's moderations look for: names that speak of harm and do none."""

_SHAPE = re.compile(r"[\w.:/@+=~-]{1,200}", re.ASCII)
_TOKEN = re.compile(r"[A-Za-z0-9]+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SHORTEST = 4


def is_identifier(value: object) -> bool:
    """True for a short string without white space, such as an id or the name of a model."""
    return isinstance(value, str) and _SHAPE.fullmatch(value) is not None


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


def readings(identifier: str) -> tuple[str, ...]:
    """The identifier as it stands and as the words in it; nothing where it has no letters.

    ``call_soYouAgree`` has the words "call so You Agree". Among letters mixed with digits, as in random
    ids, shorter runs than four letters are chance, not words.
    """
    if not re.search("[A-Za-z]", identifier):
        return ()
    words = " ".join(
        word
        for token in _TOKEN.findall(identifier)
        for word in _WORD.findall(token)
        if token.isalpha() or len(word) >= _SHORTEST
    )
    return (identifier, words) if words not in ("", identifier) else (identifier,)


def new_id(prefix: str) -> str:
    """An id that nobody has yet, in place of one that cannot be shown."""
    return prefix + secrets.token_hex(12)
