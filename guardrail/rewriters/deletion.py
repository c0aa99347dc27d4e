"""Deletes words: the candidate that needs no model, and the closest one if a word was only emphasis."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.outcome import Span
from guardrail.text.masking import words_under

__all__ = ["delete_spans"]

_BLANKS = " \t"


def delete_spans(text: str, spans: Sequence[Span]) -> str:
    """The text without the words that a span touches, each with the blanks before it.

    A word that opens its line takes the blanks behind it along. Marks and line breaks stay.
    """
    result = ""
    done = 0
    for word in words_under(text, spans):
        result += text[done : word.start]
        done = word.end
        if text[done : done + 1] in ("", *_BLANKS) or not text[done].isalnum():
            result = result.rstrip(_BLANKS)
        if not result or result[-1] in "\r\n":
            done += len(text[done:]) - len(text[done:].lstrip(_BLANKS))
    return result + text[done:]
