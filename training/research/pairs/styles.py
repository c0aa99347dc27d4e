"""Ways of writing that a row takes on both sides alike, so that no style tells what to rewrite."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from guardrail.text.protected import find
from research.pairs.words import AMERICAN

__all__ = ["STYLES", "american", "british", "restyled"]

_BRITISH = {
    there: here for here, there in AMERICAN.items() if there not in ("check", "checks", "story", "while")
}
_WORD = re.compile(r"[^\W\d_]+")
_FINAL = re.compile(r"(?<=\w)[.!]+$")
_APOSTROPHE = re.compile(r"(?<=[a-z])'(?=(?:t|s|re|ve|m|ll|d)\b)")
_KEPT = ("url", "address", "code", "placeholder", "mention")


def american(text: str) -> str:
    """The text with American spellings in place of British ones."""
    return _spelled(text, AMERICAN)


def british(text: str) -> str:
    """The text with British spellings in place of American ones, where these are no other word as well."""
    return _spelled(text, _BRITISH)


def _spelled(text: str, table: Mapping[str, str]) -> str:
    def other(match: re.Match[str]) -> str:
        word = match.group()
        found = table.get(word.lower())
        if found is None or not (word.islower() or word.istitle()):
            return word
        return found.title() if word.istitle() else found

    return _WORD.sub(other, text)


def _small(text: str) -> str:
    return _outside(text, str.lower)


def _capitals(text: str) -> str:
    return _outside(text, str.upper)


def _open(text: str) -> str:
    return _FINAL.sub("", text)


def _hasty(text: str) -> str:
    """Small letters, neither apostrophes nor final mark."""
    return _outside(_open(text), lambda part: _APOSTROPHE.sub("", part.lower()))


def _outside(text: str, change: Callable[[str], str]) -> str:
    """The text changed outside addresses, code and mentions, which letter case belongs to."""
    spans = sorted((item.span for kind in _KEPT for item in find(kind, text)), key=lambda span: span.start)
    pieces, done = [], 0
    for span in spans:
        if span.start >= done:
            pieces += [change(text[done : span.start]), text[span.start : span.end]]
            done = span.end
    return "".join([*pieces, change(text[done:])])


STYLES: Mapping[str, tuple[float, Callable[[str], str]]] = {
    "small letters": (0.08, _small),
    "no final mark": (0.08, _open),
    "hasty": (0.06, _hasty),
    "capitals": (0.01, _capitals),
    "American": (0.15, american),
    "British": (0.10, british),
}
"""Per style the share of rows that are rewritten in it, and how a text takes it on."""


def restyled(texts: Sequence[str], generator: random.Random) -> tuple[str, ...]:
    """The texts of one row in a drawn style, the same for all of them; most rows stay as they are."""
    draw = generator.random()
    for share, change in STYLES.values():
        if draw < share:
            return tuple(map(change, texts))
        draw -= share
    return tuple(texts)
