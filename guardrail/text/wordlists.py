"""Lists of words that rules need."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["english_words", "word_set"]

ENGLISH = Path(__file__).parent.parent / "shipped" / "reading" / "words.txt"


def word_set(words: str) -> frozenset[str]:
    """The words of a text between white space, as a set."""
    return frozenset(words.split())


@cache
def english_words() -> frozenset[str]:
    """The shipped list of English words."""
    return word_set(ENGLISH.read_text(encoding="utf-8"))
