"""Turns of speech whose insult is a person: what says the same without it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from guardrail.rewriters.edits.phrases import DETERMINERS, Phrase
from guardrail.rewriters.edits.repair import Change

__all__ = ["turns"]

_ONLY = re.compile(r"\b(only|just)[ \t]+(an?|the)?[ \t]*$", re.IGNORECASE)
_WOULD = re.compile(r"[ \t]+(?:would|could|would ever)[ \t]+(?!have\b|be\b|not\b)(?=[a-z])", re.IGNORECASE)
_WHICH = re.compile(
    r"\b(?:which|what)(?:[ \t]+(?:kind|sort|type)[ \t]+of(?:[ \t]+an?)?)?(?P<modifiers>(?:[ \t]+[\w-]+){0,3}?)[ \t]*$",
    re.IGNORECASE,
)
_WHO = re.compile(r"[ \t]+(?:who|that)\b", re.IGNORECASE)
_LIKE_YOU = re.compile(r"[ \t]+like[ \t]+(you|u|him|her|them|that)\b", re.IGNORECASE)
_IF = re.compile(r"(?:['’](?:re|s|m)|\b(?:am|is|are|r))[ \t]+$", re.IGNORECASE)
_WRONG = re.compile(r"[ \t]+(?:if|for|to think|to believe|about)\b", re.IGNORECASE)
_BE = re.compile(r"[ \t]*(?:['’](?:s|re|m|d)|\b(?:is|are|was|were|am))[ \t]+$", re.IGNORECASE)
_DETERMINER = re.compile(r"(?P<word>[^\W\d_]+)[ \t]+", re.IGNORECASE)


def turns(text: str, phrase: Phrase) -> Iterator[Change]:
    """Changes that put a plain word for a person in the phrase's place, or ask or say the same without it."""
    whole = text[phrase.head : phrase.end]
    first = _DETERMINER.match(whole)
    determiner = first["word"].casefold() if first else ""
    determiner = determiner if determiner in DETERMINERS or determiner == "such" else ""
    before, behind = text[: phrase.head], text[phrase.end :]
    is_plural = bool(re.search(r"s$|folk$|people$", whole)) and not whole.endswith("ss")
    if (only := _ONLY.search(text[: phrase.head])) and (
        would := _WOULD.match(behind)
    ):
        for opening in ("It makes no sense to", "Nobody should"):
            yield Change(only.start(), phrase.end + would.end(), _cased(opening, text, only.start()) + " ")
    which = _WHICH.search(text[: phrase.start])
    if which and (not which["modifiers"] or which.start("modifiers") + 1 >= phrase.head):
        yield Change(which.start(), phrase.end, _cased("who", text, which.start()))
    if like := _LIKE_YOU.match(behind):
        yield Change(phrase.head, phrase.end + like.end(), _cased(like[1], text, phrase.head))
        yield Change(phrase.head, phrase.end + like.end(), _cased(f"people like {like[1]}", text, phrase.head))
    if who := _WHO.match(behind):
        if be := _BE.search(before):  # "he is a crook who stole it": "he stole it"
            yield Change(be.start(), phrase.end + who.end())
        persons = ("the people", "those") if is_plural else ("the person", "someone")
        for person in persons:
            yield Change(phrase.head, phrase.end, _cased(person, text, phrase.head))
        if determiner in ("the", "a", "an", "some", "that", "this") and not is_plural:
            yield Change(phrase.head, phrase.end + who.end(), _cased("whoever", text, phrase.head))
    elif determiner in ("a", "an", "such") and _IF.search(before) and _WRONG.match(behind):
        yield Change(phrase.head, phrase.end, "wrong")
    elif determiner in ("this", "that", "these", "those", "the"):
        words = ("people",) if is_plural else ("person", "guy")[: 1 if determiner == "the" else 2]
        for word in words:
            yield Change(phrase.head, phrase.end, _cased(f"{determiner} {word}", text, phrase.head))
        if is_plural:
            yield Change(phrase.head, phrase.end, _cased("they", text, phrase.head))
    elif determiner == "some" or (determiner in ("a", "an") and not _BE.search(before)):
        yield Change(
            phrase.head, phrase.end, _cased("some people" if is_plural else "someone", text, phrase.head)
        )
    elif is_plural and not determiner and not behind.lstrip().startswith(","):
        yield Change(phrase.head, phrase.end, _cased("people", text, phrase.head))


def _cased(words: str, text: str, at: int) -> str:
    """The words with a capital where the text has one."""
    return words[0].upper() + words[1:] if text[at : at + 1].isupper() else words[0].lower() + words[1:]
