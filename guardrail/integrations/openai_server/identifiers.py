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
_HEX = re.compile(r"[0-9A-F]+|[0-9a-f]+")
_SPOKEN = re.compile(r"[A-Za-z]\w{2}|\w[A-Za-z]\w|\w{2}[A-Za-z]", re.ASCII)  # not "fp" or "4o"
_LONG = 10
"""Letters mixed with digits: shorter ones may be a word in disguise ("1d10t")."""
_RUN = 4
"""Letters in a row among random characters: shorter ones are chance."""


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
    """What a reader finds in it: the identifier as it stands, and as words; nothing where it has none.

    ``call_soYouAgree`` has the words "call so You Agree". To a detector random characters look like words in
    disguise, so those of hashes and random ids are left out, but for runs of letters as long as words.
    """
    seen = _TOKEN.sub(lambda token: "" if _is_random(token[0]) else token[0], identifier).strip("_.:/@+=~-")
    words = " ".join(word for token in _TOKEN.findall(identifier) for word in _words(token))
    return tuple(text for text in dict.fromkeys((seen, words)) if _SPOKEN.search(text))


def _is_random(token: str) -> bool:
    is_mixed = not token.isalpha() and not token.isdigit()
    return is_mixed and (len(token) >= _LONG or _HEX.fullmatch(token) is not None)


def _words(token: str) -> list[str]:
    if token.isalpha():
        return _WORD.findall(token)
    if _HEX.fullmatch(token):
        return []
    return [run for run in _WORD.findall(token) if len(run) >= _RUN] if _is_random(token) else [token]


def new_id(prefix: str) -> str:
    """An id that nobody has yet, in place of one that cannot be shown."""
    return prefix + secrets.token_hex(12)
