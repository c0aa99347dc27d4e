"""Lists of words that rules need, written as text."""

from __future__ import annotations

__all__ = ["word_set"]


def word_set(words: str) -> frozenset[str]:
    """The words of a text between white space, as a set."""
    return frozenset(words.split())
