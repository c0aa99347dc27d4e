"""Mends what surrounds an edit: articles, commas, conjunctions, capitals and final marks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Change", "apply", "has_hole"]

_BLANKS = " \t"
_PAUSES = ",;:"
_DASHES = "–—-"
_ENDS = ".!?"
_CLOSING = _ENDS + _PAUSES + ")]}…"
_LAST_WORD = re.compile(r"(?P<word>[^\W\d_]+(?:['’][^\W\d_]+)*)[ \t]*$")
_FIRST_WORD = re.compile(r"[ \t]*(?P<word>[^\W_]+(?:['’][^\W\d_]+)*)")
_CONJUNCTIONS = frozenset(["and", "but", "or", "nor", "so", "because", "plus", "n", "&"])
# What cannot end a clause: something that was to follow is gone. The first set may be dropped with it.
_DANGLING = frozenset(
    ["a", "an", "the", "such", "like", "as", "and", "or", "but", "of", "very", "so", "than", "with", "by", "absolute"]
)
_OPEN = _DANGLING | frozenset(
    "your my his her their our its to for from at into is are was were be been 're 's 'm im am being"
    " because if which who whose that's it's he's she's you're they're we're i'm what's who's u're ur".split()
)
_VOWEL = re.compile(r"(?:[aeio]|u(?!n[aeiou]|s[aeu]|ti|k\b)|h(?:our|onest|onou?r|eir))", re.IGNORECASE)
_CONSONANT_SOUND = re.compile(r"(?:one\b|once\b|eu|ewe|uni|use|usu)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Change:
    """A stretch of the text, and what stands there instead; "" deletes it."""

    start: int
    end: int
    instead: str = field(default="", repr=False)


def apply(text: str, changes: Sequence[Change], *, both_commas: bool = False) -> str | None:
    """The text after disjoint changes, mended at each of them; None where a hole is left.

    With ``both_commas`` the commas on either side of what is deleted go too: "morale, you prigs, is low"
    becomes "morale is low" and not "morale, is low".
    """
    left = ""
    done = 0
    for change in sorted(changes, key=lambda c: c.start):
        left += text[done : change.start]
        done = change.end
        right = text[done:]
        if change.instead:
            left = _with_article(left, change.instead) + change.instead
            seam = left, right
        else:
            seam = _joined(left, right, both_commas=both_commas)
        if _is_hole(*seam, text, change):
            return None
        left, rest = seam
        done = len(text) - len(rest) if text.endswith(rest) else done
        if not text.endswith(rest):  # the seam changed the first letter of what follows
            left, done = left + rest[:1], len(text) - len(rest) + 1
    result = left + text[done:]
    if text[:1].isupper() and result[:1].islower():
        result = result[:1].upper() + result[1:]
    return _closed(result, text)


def _joined(left: str, right: str, *, both_commas: bool) -> tuple[str, str]:
    """Both sides of a deletion, so that they can stand next to each other."""
    touching = bool(left) and left[-1] not in _BLANKS and bool(right) and right[0] not in _BLANKS
    left, right = left.rstrip(_BLANKS), right.lstrip(_BLANKS)
    if both_commas and left.endswith(",") and right.startswith(","):
        left, right = left[:-1], right[1:].lstrip(_BLANKS)
    if both_commas and left.endswith(",") and _first_word(right) in _CONJUNCTIONS:
        left = left[:-1]
    if left.endswith("(") and right.startswith(")"):
        left, right = left[:-1].rstrip(_BLANKS), right[1:].lstrip(_BLANKS)
    if _last_word(left) in _CONJUNCTIONS and right.startswith(",") and right[1:].strip():
        right = right[1:].lstrip(_BLANKS)
    while True:
        if _opens(left):
            stripped = right.lstrip(_BLANKS + _PAUSES + _DASHES + _ENDS)
            if left and left[-1] in _ENDS + "\n" and stripped[:1].islower() and left[-1] != "\n":
                stripped = stripped[0].upper() + stripped[1:]
            right = stripped
            break
        if not right or right[0] in _CLOSING or right[0] in "\r\n":
            shorter = left.rstrip(_BLANKS + _PAUSES + "–—") if not right or right[0] in _CLOSING + "\r\n" else left
            word = _last_word(shorter)
            if word in _DANGLING or (word in ("you", "u") and _stands_alone(shorter)):
                left = shorter[: _LAST_WORD.search(shorter).start()].rstrip(_BLANKS)  # type: ignore[union-attr]
                continue
            left = shorter
            break
        if left[-1] in _PAUSES and right[0] in _PAUSES:
            left = left[:-1]
            continue
        break
    if _last_word(left) in ("a", "an"):
        left = _with_article(left + " ", right).rstrip(_BLANKS)
    needs_blank = left and right and left[-1] not in "\r\n([{\"“‘*_`" and right[0] not in _CLOSING + "\r\n"
    glued = touching and left[-1:] in tuple("([{\"“‘*_`-/")
    return (left + " " if needs_blank and not glued else left), right


def _stands_alone(left: str) -> bool:
    before = left[: _LAST_WORD.search(left).start()].rstrip(_BLANKS)  # type: ignore[union-attr]
    return not before or before[-1] in _CLOSING + _DASHES


def _opens(left: str) -> bool:
    """Whether what follows opens a sentence or a line."""
    return not left or left[-1] in _ENDS + "\r\n"


def _last_word(left: str) -> str:
    found = _LAST_WORD.search(left)
    return found["word"].casefold().replace("’", "'") if found else ""


def _first_word(right: str) -> str:
    found = _FIRST_WORD.match(right)
    return found["word"].casefold() if found else ""


def _with_article(left: str, right: str) -> str:
    """The left side with its last word, where that is a or an, as the first word of the right side needs it."""
    found = re.search(r"\b(an?)([ \t]+)$", left, re.IGNORECASE)
    word = _FIRST_WORD.match(right)
    if not found or not word:
        return left
    vowel = bool(_VOWEL.match(word["word"])) and not _CONSONANT_SOUND.match(word["word"])
    article = found[1][0] + ("n" if vowel else "")
    if found[1].isupper() and len(found[1]) > 1:
        article = article.upper()
    return left[: found.start()] + article + found[2]


def _is_hole(left: str, right: str, text: str, change: Change) -> bool:
    """Whether the left side lacks what it leads to, where the source did not end there itself."""
    if change.instead:
        return False
    if left.rstrip(_BLANKS).endswith(("(", "[")):
        return not right.strip() or right[0] in _CLOSING
    if right.strip() and right[0] not in _CLOSING + "\r\n":
        articles = ("a", "an", "the", "such", "your", "my")
        return _last_word(left) in articles and _first_word(right) in _NEVER_AFTER_ARTICLE
    return _last_word(left) in _OPEN


_NEVER_AFTER_ARTICLE = frozenset(
    "a an the who that which is are was were if and or but would will can could has have had to for of in on at by"
    " with because when while like as than".split()
)


def has_hole(text: str) -> bool:
    """Whether a text ends, or a clause of it, in a word that cannot end one."""
    return any(_last_word(piece) in _DANGLING for piece in _pieces(text))


def _pieces(text: str) -> Iterable[str]:
    return (piece for piece in re.split(r"[.!?,;:](?=\s|$)", text) if piece.strip())


def _closed(result: str, source: str) -> str:
    """The result with the final mark of the source, if it lost one."""
    end = source.rstrip()[-1:]
    stripped = result.rstrip()
    if end in _ENDS and end and stripped and stripped[-1] not in _ENDS + "…\"”'’)`*:":
        return stripped.rstrip(_PAUSES + _BLANKS) + end
    return stripped if result != stripped and source == source.rstrip() else result
