"""Turns of speech whose insult is a person: what says the same without it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from guardrail.rewriters.edits.phrases import DETERMINERS, Phrase
from guardrail.rewriters.edits.repair import Change

__all__ = ["turns"]

_ONLY = re.compile(r"\b(?:only|just)[ \t]+$", re.IGNORECASE)
_WOULD = re.compile(
    r"[ \t]+(?:would|could)[ \t]+(?:ever[ \t]+)?(?!have\b|be\b|not\b)(?=[a-z])", re.IGNORECASE
)
_WHICH = re.compile(
    r"\b(?P<word>which|what|whichever)(?:[ \t]+(?:kind|sort|type)[ \t]+of(?:[ \t]+an?)?)?"
    r"(?P<modifiers>(?:[ \t]+[\w-]+){0,3}?)[ \t]*$",
    re.IGNORECASE,
)
_WHO = re.compile(r"[ \t]+(?:who|that)\b", re.IGNORECASE)
_LIKE = re.compile(r"[ \t]+like[ \t]+(?P<whom>you|u|him|her|them|that)\b", re.IGNORECASE)
_BE = re.compile(r"[ \t]*(?:['’](?:s|re|m)|\b(?:is|are|was|were|am|r))[ \t]+$", re.IGNORECASE)
_WRONG = re.compile(r"[ \t]+(?:if|for|to think|to believe|about)\b", re.IGNORECASE)
_FIRST = re.compile(r"[^\W\d_]+")
_PLURAL = re.compile(r"(?:[^s]s|folk|people)$", re.IGNORECASE)


def turns(text: str, phrase: Phrase) -> Iterator[Change]:
    """Changes that put a plain word for a person in the phrase's place, or ask or say the same without it."""
    yield from _only(text, phrase)
    which = _WHICH.search(text[: phrase.start])
    if which and (not which["modifiers"] or which.start("modifiers") + 1 >= phrase.head):
        person = "whoever" if which["word"].casefold() == "whichever" else "who"
        yield _changed(text, which.start(), phrase.end, person)
    if like := _LIKE.match(text, phrase.end):
        for words in (like["whom"], f"people like {like['whom']}"):
            yield _changed(text, phrase.head, like.end(), words)
    yield from _persons(text, phrase)


def _only(text: str, phrase: Phrase) -> Iterator[Change]:
    """For "only an idiot would try"."""
    only, would = _ONLY.search(text[: phrase.head]), _WOULD.match(text, phrase.end)
    if only and would:
        for opening in ("It makes no sense to ", "Nobody should "):
            yield _changed(text, only.start(), would.end(), opening)


def _persons(text: str, phrase: Phrase) -> Iterator[Change]:
    first = _FIRST.match(text, phrase.head, phrase.start)
    determiner = first.group().casefold() if first else ""
    determiner = determiner if determiner in DETERMINERS else ""
    is_plural = bool(_PLURAL.search(text[phrase.start : phrase.end]))
    if who := _WHO.match(text, phrase.end):
        plural = ("the people", "those") if determiner else ("people", "those")
        persons = plural if is_plural else ("the person", "someone", "whoever")
        yield from _who(text, phrase, who.end(), persons=persons)
        return
    be = _BE.search(text[: phrase.head])
    words: tuple[str, ...] = ()
    if determiner in ("a", "an", "such") and be:
        words = ("wrong",) if _WRONG.match(text, phrase.end) else ()
    elif determiner in ("this", "that", "these", "those", "the"):
        words = (f"{determiner} people", "they") if is_plural else (f"{determiner} person",)
    elif determiner in ("some", "a", "an"):
        words = ("some people",) if is_plural else ("someone",)
    elif is_plural and not determiner and not text[phrase.end :].lstrip().startswith(","):
        words = ("people",)
    for word in words:
        yield _changed(text, phrase.head, phrase.end, word)


def _who(text: str, phrase: Phrase, end: int, *, persons: Sequence[str]) -> Iterator[Change]:
    """For "an idiot who wrote it"; ``end`` is behind "who"."""
    if be := _BE.search(text[: phrase.head]):  # "he is a crook who stole it": "he stole it"
        yield Change(be.start(), end)
    for person in persons:
        yield _changed(text, phrase.head, end if person == "whoever" else phrase.end, person)


def _changed(text: str, start: int, end: int, words: str) -> Change:
    """The change, with a capital if the text has one."""
    if text[start:end].isupper() and len(text[start:end].split()) > 1:
        return Change(start, end, words.upper())
    first = words[0].upper() if text[start : start + 1].isupper() else words[0].lower()
    return Change(start, end, first + words[1:])
