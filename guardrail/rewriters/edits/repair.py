"""Mends what surrounds an edit: articles, commas, conjunctions, capitals and final marks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from guardrail.text.wordlists import word_set

__all__ = ["Change", "apply", "has_hole", "with_article"]


_BLANKS = " \t"
_PAUSES = ",;:"
_ENDS = ".!?"
_BREAKS = "\r\n"
_CLOSING = _ENDS + _PAUSES + ")]}…"
_LAST_WORD = re.compile(r"(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)[ \t]*$")
_FIRST_WORD = re.compile(r"[ \t]*(?P<word>[^\W_]+(?:['’][^\W\d_]+)*)")
_ARTICLE = re.compile(r"\b(?P<article>an?)(?P<blanks>[ \t]+)$", re.IGNORECASE)
_CONJUNCTIONS = word_set("and but or nor so because plus n")
_DANGLING = word_set("a an the such like as and or but of very so than with by absolute")
"""What goes with the deleted words that it led to."""
_LEADS_ON = _DANGLING | word_set(
    "your my his her their our its to for from at into of on is are was were be been being am im"
    " because if which who whose that's it's he's she's you're they're we're i'm what's who's u're ur"
)
"""What cannot stand before a mark, unless the source has it there."""
_LEADS_TO_NOUN = word_set("a an the such your my")
_NO_NOUN = word_set(
    "a an the who that which is are was were if and or but would will can could has have had to for"
    " of in on at by with because when while like as than"
)
_HAVE = word_set("have has had having i've you've we've they've")
_PREPOSITIONS = word_set("of to for from at into in on with by than")
_NEVER_LAST = _LEADS_ON | _HAVE | _PREPOSITIONS | {"thank", "worth", "most", "every", "no"}
_CONTRACTED = ("'s", "'re", "'m", "'ve")
_BE = word_set("is are was were be been being am im")
_JOINS_CLAUSES = _BE | word_set("and but or nor which although though whose because")
_WORDS = r"[^\W\d_]+(?:['’][^\W\d_]+)*"
_BEFORE_MARK = re.compile(rf"(?<![^\W_])(?P<word>{_WORDS})[ \t]*(?=[.,;:!?…)\]\"”\r\n]|\s[–—-]|\Z)")
_NEIGHBOURS = re.compile(rf"(?<![^\W_])(?P<word>{_WORDS})(?=[ \t]+(?P<next>{_WORDS}))")
_VOWEL = re.compile(r"(?:[aeio]|u(?!n[aeiou]|s[aeu]|ti|k\b)|h(?:our|onest|onou?r|eir))", re.IGNORECASE)
_CONSONANT = re.compile(r"(?:one\b|once\b|eu|ewe|uni|use|usu)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of the text, and what stands there instead; "" deletes it."""

    start: int
    end: int
    instead: str = field(default="", repr=False)


def apply(text: str, changes: Sequence[Change], *, both_commas: bool = False) -> str | None:
    """The text after disjoint changes, repaired at each of them; None if a hole is left.

    With ``both_commas`` a comma goes too if there is one on either side, or a conjunction behind it:
    "morale, you prigs, is low" becomes "morale is low" and not "morale, is low".
    """
    left, right = text, ""
    for change in sorted(changes, key=lambda change: change.start, reverse=True):
        if change.start >= len(left):
            continue  # it went with what it led to
        right = left[change.end :] + right
        left = left[: change.start]
        if change.instead:
            left, right = _put(left, change.instead, right)
            continue
        left, right = _joined(left, right, both_commas=both_commas, is_casual=text[:1].islower())
        if _is_hole(left, right, source=text):
            return None
    result = left + right
    if text[:1].isupper():
        result = result[:1].upper() + result[1:]
    return _closed(result, text)


def has_hole(source: str, result: str) -> bool:
    """Whether a word of the result leads to nothing, or to what cannot follow it, that did not in the source.

    Words that lead on are forms of be and have, articles, possessives, prepositions and what ends in "'s".
    """
    at_ends = _before_marks(result) - _before_marks(source)
    if any(word in _NEVER_LAST or word.endswith(_CONTRACTED) for word in at_ends):
        return True
    return any(_cannot_follow(first, second) for first, second in _neighbours(result) - _neighbours(source))


def _before_marks(text: str) -> Counter[str]:
    """The words that stand before a mark or at an end of the text."""
    return Counter(_plain(match["word"]) for match in _BEFORE_MARK.finditer(text))


def _neighbours(text: str) -> Counter[tuple[str, str]]:
    """Every two words with nothing but blanks between them."""
    return Counter((_plain(match["word"]), _plain(match["next"])) for match in _NEIGHBOURS.finditer(text))


def _cannot_follow(first: str, second: str) -> bool:
    if first == second:
        return first in _LEADS_ON
    if first in _LEADS_TO_NOUN:
        return second in _NO_NOUN
    is_be = first in _BE or first.endswith(("'re", "'m"))
    return (is_be or first in _PREPOSITIONS) and second in _JOINS_CLAUSES


def _put(left: str, instead: str, right: str) -> tuple[str, str]:
    """Both sides with words put between them; articles fit what follows, a new sentence has its capital."""
    left = with_article(left, instead)
    blanks = right[: len(right) - len(right.lstrip(_BLANKS))]
    right = right[len(blanks) :]
    if instead[-1] in _ENDS and blanks and right[:1].islower() and not left.islower():
        right = right[:1].upper() + right[1:]
    return left + (with_article(instead + blanks, right) if blanks else instead), right


def _joined(left: str, right: str, *, both_commas: bool, is_casual: bool) -> tuple[str, str]:
    """Both sides of a deletion, so that they can stand next to each other.

    Nothing is put between parts of one word, and casual text, which begins in small letters, stays so.
    """
    is_inside_word = all(end == "-" or end.isalnum() for end in (left[-1:], right[:1]))
    left, right = left.rstrip(_BLANKS), right.lstrip(_BLANKS)
    left, right = _paired(left, right, both_commas=both_commas)
    if not left or left[-1] in _ENDS + _BREAKS:
        return _opened(left, right, is_casual=is_casual)
    if not right or right[0] in _CLOSING + _BREAKS:
        left = _ended(left)
        if not left or left[-1] in _ENDS + _BREAKS:
            return _opened(left, right, is_casual=is_casual)
    if _last_word(left) in ("a", "an"):
        left = with_article(left + " ", right).rstrip(_BLANKS)
    if (
        not is_inside_word
        and right
        and right[0] not in _CLOSING + _BREAKS
        and left[-1] not in _BREAKS + '([{"“‘*_`/'
    ):
        left += " "
    return left, right


def _paired(left: str, right: str, *, both_commas: bool) -> tuple[str, str]:
    """Both sides without what stood around the deleted words on either side."""
    if left.endswith("(") and right.startswith(")"):
        left, right = left[:-1].rstrip(_BLANKS), right[1:].lstrip(_BLANKS)
    if both_commas and left.endswith(","):
        if right.startswith(","):
            left, right = left[:-1], right[1:].lstrip(_BLANKS)
        elif _first_word(right) in _CONJUNCTIONS:
            left = left[:-1]
    if _last_word(left) in _CONJUNCTIONS and right.startswith(",") and right[1:].strip():
        right = right[1:].lstrip(_BLANKS)
    return left, right


def _opened(left: str, right: str, *, is_casual: bool) -> tuple[str, str]:
    """Both sides if the right one opens the text, a sentence or a line now."""
    right = right.lstrip(_BLANKS + _PAUSES + _ENDS + "–—-")
    if left and left[-1] in _ENDS:
        right = right if is_casual else right[:1].upper() + right[1:]
        left += " " if right and right[0] not in _BREAKS else ""
    return left, right


def _ended(left: str) -> str:
    """The left side of a mark, without marks of its own and without words that led to what is gone."""
    while left:
        left = left.rstrip(_BLANKS + _PAUSES + "–—")
        last_word = _LAST_WORD.search(left)
        word = _last_word(left)
        before = left[: last_word.start()].rstrip(_BLANKS) if last_word else ""
        is_address = word in ("you", "u") and (not before or before[-1] in _CLOSING + "–—")
        if word not in _DANGLING and not is_address:
            break
        left = before
    return left


def _is_hole(left: str, right: str, *, source: str) -> bool:
    """Whether the left side, with which the source begins, lacks what it leads to, and did not there."""
    if not right.strip() or right[0] in _CLOSING + _BREAKS:
        if source[len(left.rstrip(_BLANKS)) :].lstrip(_BLANKS)[:1] in (*_CLOSING, *_BREAKS):
            return False
        return left.rstrip(_BLANKS).endswith(("(", "[")) or _last_word(left) in _LEADS_ON
    return _last_word(left) in _LEADS_TO_NOUN and _first_word(right) in _NO_NOUN


def _last_word(left: str) -> str:
    last_word = _LAST_WORD.search(left)
    return _plain(last_word["word"]) if last_word else ""


def _plain(word: str) -> str:
    return word.casefold().replace("’", "'")


def _first_word(right: str) -> str:
    first_word = _FIRST_WORD.match(right)
    return first_word["word"].casefold() if first_word else ""


def with_article(left: str, right: str) -> str:
    """The left side; if it ends in a or an, as the first word of the right side needs it."""
    match = _ARTICLE.search(left)
    word = _first_word(right)
    if not match or not word:
        return left
    article = match["article"][0]
    if _VOWEL.match(word) and not _CONSONANT.match(word):
        article += "N" if match["article"].isupper() and right.isupper() else "n"
    return left[: match.start()] + article + match["blanks"]


def _closed(result: str, source: str) -> str:
    """The result with the final mark of the source, if it lost one."""
    end, stripped = source.rstrip()[-1:], result.rstrip()
    if end and end in _ENDS and stripped and stripped[-1] not in _ENDS + "…\"”'’`*":
        return stripped.rstrip(_PAUSES + _BLANKS) + end
    return stripped if source == source.rstrip() else result
