"""What a tagger may say of a word, and the text that its tags make of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from guardrail.outcome import Span
from guardrail.rewriters.edits.propose import KEPT
from guardrail.rewriters.edits.ranking import letters
from guardrail.rewriters.edits.repair import Change, apply, has_hole, with_article
from guardrail.text.protected import find, protected_spans
from guardrail.text.wordlists import word_set

__all__ = ["DELETE", "KEEP", "UNKNOWN", "UNKNOWN_APPEND", "Tag", "realised", "words"]

KEEP, DELETE = "keep", "delete"
UNKNOWN, UNKNOWN_APPEND = "unknown", "unknown append"
"""A replacement, or an addition, that is needed and is none of the phrases that the tagger has learned."""
Kind = Literal["keep", "delete", "replace", "append", "unknown"]

_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_PREFIX = re.compile(r"(?<![^\W_])(?:un|in|im|ir|dis|abso|fan|guaran|ri)(?=-$)", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_BLANKS = " \t"
_ENDS = ".!?"
_PAUSES = ",;:"
_BEFORE_START = _BLANKS + "\"'“‘(*_>#-"
_PAIRED = ("()", "[]", "{}", "<>", "“”", "«»")
_MARK_OF_EMPHASIS = re.compile(r"[*_~]+")
_NOTHING_BETWEEN = re.compile(
    r"\(\s*\)|\[\s*\]|\"\s*\"|“\s*”|«\s*»|\*\*\s*\*\*|__\s*__|~~\s*~~|(?<!\*)\*[ \t]+\*(?!\*)"
)
_SPACE_BEFORE_MARK = re.compile(r"\s+(?=[,.!?;:])")
_I = re.compile(r"\bi(?=$|[\s'’])")
_SAYS_NOTHING = word_set(
    "a an the this that these those you u ya your and but or so is are was were be been being"
)


@dataclass(frozen=True, slots=True)
class Tag:
    """What is to be done about a word; ``phrase`` replaces it, or stands behind it."""

    kind: Kind
    phrase: str = field(default="", repr=False)

    @classmethod
    def parse(cls, label: str) -> Tag:
        """The tag of a label: "keep", "delete", "unknown", "unknown append", "replace P" or "append P"."""
        name, _, phrase = label.partition(" ")
        if name in ("replace", "append") and phrase:
            return cls("replace" if name == "replace" else "append", phrase)
        if label in (KEEP, DELETE):
            return cls("keep" if label == KEEP else "delete")
        if label in (UNKNOWN, UNKNOWN_APPEND):
            return cls("unknown")
        raise ValueError(f"{label!r} is not a tag")


def words(text: str) -> list[Span]:
    """The words and marks that are tagged, in order."""
    return [Span(*match.span()) for match in _WORD.finditer(text)]


def realised(text: str, tagged: Sequence[Span], tags: Sequence[Tag]) -> str | None:
    """The text with its words as the tags say, and everything else as it was.

    What surrounds a change is repaired. None if nothing changes or a word needs what no tag can say, if
    code, a link, a number, a name or a quotation would be touched, or a mark lose its partner, and if a
    hole is left.
    """
    if any(tag.kind == "unknown" for tag in tags):
        return None
    changes = list(_changes(text, tagged, tags))
    if not changes or not _may_change(text, changes):
        return None
    result = apply(text, changes)
    if (
        result is None
        or letters(result) == letters(text)
        or _is_empty(result, text)
        or has_hole(text, result)
    ):
        return None
    return result


def _changes(text: str, tagged: Sequence[Span], tags: Sequence[Tag]) -> Iterator[Change]:
    """One change for each run of words of which none is kept; words that are added to one begin a run."""
    place = 0
    while place < len(tagged):
        first = place
        place += 1
        if tags[first].kind == "keep":
            continue
        while place < len(tagged) and tags[place].kind in ("delete", "replace"):
            place += 1
        yield _change(text, tagged[first:place], tags[first:place])


def _change(text: str, run: Sequence[Span], tags: Sequence[Tag]) -> Change:
    start, end = run[0].start, run[-1].end
    instead = _SPACE_BEFORE_MARK.sub("", " ".join(tag.phrase for tag in tags if tag.phrase))
    instead = _styled(instead, text, start if tags[0].kind != "append" else run[0].end)
    if tags[0].kind == "append":
        word, blank = text[start : run[0].end], "" if instead[0] in _ENDS + _PAUSES else " "
        return Change(start, end, with_article(f"{word} ", instead).rstrip() + blank + instead)
    if not instead and text[end - 1] == "-" and _PREFIX.search(text[:start]):
        start -= 1  # "un-damn-believable"
    if instead and instead[0] in _ENDS + _PAUSES:
        drop = _BLANKS + (_PAUSES if instead[0] in _ENDS else "")
        start = len(text[:start].rstrip(drop))
    return Change(start, end, instead)


def _styled(phrase: str, text: str, start: int) -> str:
    """The phrase in the letter case and with the apostrophes of the text at ``start``."""
    if text.isupper():
        return phrase.upper()
    if not text.islower():
        phrase = _I.sub("I", phrase)
    if "’" in text and "'" not in text:
        phrase = phrase.replace("'", "’")
    before = text[:start].rstrip(_BEFORE_START)
    if text[start : start + 1].isupper() and (not before or before[-1] in _ENDS + "\r\n…"):
        return phrase[:1].upper() + phrase[1:]
    return phrase


def _may_change(text: str, changes: Sequence[Change]) -> bool:
    """Whether nothing protected is touched and every mark of emphasis, quotation or bracket has its pair."""
    closed = [*protected_spans(text), *(item.span for kind in KEPT for item in find(kind, text))]
    if any(c.start < span.end and span.start < c.end for c in changes for span in closed):
        return False
    for item in find("emphasis", text):
        mark = _MARK_OF_EMPHASIS.match(text, item.span.start)
        size = len(mark.group()) if mark else 1
        marks = (item.span.start, item.span.start + size), (item.span.end - size, item.span.end)
        first, last = (any(c.start < end and start < c.end for c in changes) for start, end in marks)
        if first != last:
            return False
    gone = "".join(text[change.start : change.end] for change in changes)
    return gone.count('"') % 2 == 0 and all(gone.count(pair[0]) == gone.count(pair[1]) for pair in _PAIRED)


def _is_empty(result: str, source: str) -> bool:
    """Whether nothing is said any more, or nothing is left between two marks."""
    between = (len(_NOTHING_BETWEEN.findall(text)) for text in (result, source))
    says = {word.casefold() for word in _LETTERS.findall(result)}
    return says <= _SAYS_NOTHING or next(between) > next(between)
