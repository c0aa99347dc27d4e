"""Tells whether a model can read a text: its script, and how much of it the vocabulary covers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from guardrail.detectors.windows import Encoding

__all__ = ["count_uncased", "has_foreign_letters_only", "has_letter", "is_unreadable"]

# Character names speak of ideographs by their standard, not by their script.
_NAMED = {"HAN": "CJK"}


def is_unreadable(text: str, encoding: Encoding, *, scripts: Sequence[str], unknown_id: int) -> bool:
    """True if most letters are of scripts not listed, or most tokens with letters are unknown.

    Digits, punctuation, marks and emoji count neither way; private and unassigned characters count as letters
    of no script.
    """
    return _is_foreign(text, _named(scripts)) or _is_unknown(text, encoding, unknown_id)


def has_letter(text: str, scripts: Sequence[str]) -> bool:
    """True if a letter of one of the scripts is among the characters."""
    named = _named(scripts)
    return any(character.isalpha() and _is_of(character, named) for character in text)


def has_foreign_letters_only(text: str, scripts: Sequence[str]) -> bool:
    """True if letters are among the characters, but none of the scripts."""
    return not text.isascii() and any(map(str.isalpha, text)) and not has_letter(text, scripts)


def count_uncased(text: str, scripts: Sequence[str]) -> int:
    """The number of letters of the scripts that have no capitals: ideographs, kana, Arabic, Thai."""
    if text.isascii():
        return 0
    named = _named(scripts)
    return sum(c.isalpha() and c.lower() == c.upper() and _is_of(c, named) for c in text)


def _named(scripts: Sequence[str]) -> tuple[str, ...]:
    return tuple(_NAMED.get(script.upper(), script.upper()) for script in scripts)


def _is_foreign(text: str, named: tuple[str, ...]) -> bool:
    if text.isascii() and "LATIN" in named:
        return False
    foreign = total = 0
    for character in text:
        if character.isalpha() or (not character.isascii() and _is_private(character)):
            total += 1
            foreign += not _is_of(character, named)
    return 2 * foreign > total


def _is_unknown(text: str, encoding: Encoding, unknown_id: int) -> bool:
    is_unknown = encoding.ids == unknown_id
    if not is_unknown.any():
        return False
    bounds = zip(encoding.starts, encoding.ends, strict=True)
    has_letters = [any(map(str.isalpha, text[start:end])) for start, end in bounds]
    return bool(2 * is_unknown[has_letters].sum() > sum(has_letters))


@lru_cache(maxsize=8192)
def _is_private(character: str) -> bool:
    return unicodedata.category(character) in ("Cn", "Co", "Cs")


@lru_cache(maxsize=8192)
def _is_of(character: str, named: tuple[str, ...]) -> bool:
    name = unicodedata.name(character, "")
    return any(script in name.split() for script in named)
