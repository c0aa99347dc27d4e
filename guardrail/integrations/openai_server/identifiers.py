"""Identifiers that an upstream chooses, such as ids, codes and keys: found in JSON, given anew."""

from __future__ import annotations

import secrets

from guardrail.structured.identifiers import is_identifier

__all__ = ["CATEGORIES", "identifiers_in", "new_id"]

CATEGORIES = frozenset(
    {
        *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
        *("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors"),
        *("violence", "violence/graphic"),
    }
)
"""What OpenAI's moderations look for: names that speak of harm and do none."""


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
