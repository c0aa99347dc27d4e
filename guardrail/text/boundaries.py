"""Where a text may be cut: sentence ends, fences, list markers, and the last resort inside a long run.

Pure functions over a buffer that may still grow. Each looks a bounded number of characters ahead and raises
``IncompleteError`` while the answer could still change; with ``final`` the buffer ends where the text does.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from guardrail.outcome import Span

__all__ = [
    "ABBREVIATIONS",
    "ENDS",
    "LINE_BREAKS",
    "LOOKAHEAD",
    "SENTENCE_RUN",
    "Fence",
    "IncompleteError",
    "closing_fence",
    "ends_sentence",
    "last_resort",
    "lead_end",
    "opening_fence",
    "run_end",
    "trimmed",
]

LINE_BREAKS = "\n\r\v\f\x85\u2028\u2029"
SPACED_ENDS = ".!?…‽⁇⁈⁉؟۔।॥։።။។"
"""Marks that end a sentence when white space follows."""
DENSE_ENDS = "。！？｡"
"""Marks that end a sentence whatever follows: their scripts put no space between sentences."""
BRACKETS = "\"'”’»›)]}」』）】》〉"
EMPHASIS = "*_~"
EMOJI = "\u200d\u20e3\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f"
ENDS = SPACED_ENDS + DENSE_ENDS

INDENT, FENCE_RUN, INFO, MARKS = 12, 32, 80, 16
LOOKAHEAD = INDENT + FENCE_RUN + INFO + 1
"""Characters beyond a possible boundary that may have to arrive before it is decided."""
VIRAMA = 9
"""The combining class of the signs that bind two letters of an Indic script into one."""
CLUSTER = 16
"""Characters that a cut inside a run without white space may move back to spare a combined character."""

_DENSE_ENDS = frozenset(DENSE_ENDS)
_BREAK = f"[{LINE_BREAKS}]"
_INDENT = re.compile(rf"[ \t]{{0,{INDENT}}}")
_FENCE_RUN = {mark: re.compile(rf"{mark}{{0,{FENCE_RUN + 1}}}") for mark in "`~"}
_INFO = re.compile(rf"[^`{LINE_BREAKS}]{{0,{INFO}}}")
SENTENCE_RUN = re.compile(rf"[{ENDS}]{{1,{MARKS}}}[{re.escape(BRACKETS + EMPHASIS)}{EMOJI}]{{0,{MARKS}}}")
"""A run of end marks and the closing brackets, quotes and emoji after it."""
_LEAD = re.compile(r"(?:\s+|[-*+](?=\s)|#{1,6}(?=\s)|[>|]|\d{1,9}[.)](?=\s))*")
_LEAD_WITHIN_LINE = re.compile(r"\s*")
_HAS_BREAK = re.compile(_BREAK)
_LAST_WORD = re.compile(r"[^\W_]+(?:\.[^\W_]+)*\Z")
_INITIALS = re.compile(r"[^\W\d_](?:\.[^\W\d_])*\Z")

_SHORTENED = (
    "adm approx assoc ave bros capt cf cmdr co col corp dept dr ed eds est etc ex fr gen gov hon inc jr lt "
    "ltd maj messrs mme mr mrs ms mt pres prof rep rev sen sgt sr st univ viz vs"
)
ABBREVIATIONS = frozenset(_SHORTENED.split())
_BEFORE_NUMBERS = frozenset(["art", "ch", "eq", "fig", "no", "nos", "nr", "p", "pp", "pt", "sec", "vol"])
_WORD_WINDOW = 16


class IncompleteError(Exception):
    """More text, or the end of the text, is needed to decide."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The opening line of a fenced code block: its mark, how often it stands there, where the line ends."""

    mark: str
    length: int
    end: int


def run_end(pattern: re.Pattern[str], text: str, at: int, *, final: bool) -> int:
    """Where the run that starts at ``at`` ends.

    Raises IncompleteError if it touches the end of an unfinished text.
    """
    match = pattern.match(text, at)
    end = match.end() if match else at
    if end >= len(text) and not final:
        raise IncompleteError
    return end


def opening_fence(text: str, at: int, *, final: bool) -> Fence | None:
    """The code fence that the line starting at ``at`` opens, if it does."""
    begin = run_end(_INDENT, text, at, final=final)
    mark = text[begin : begin + 1]
    if mark not in _FENCE_RUN:
        return None
    after = run_end(_FENCE_RUN[mark], text, begin, final=final)
    if not 3 <= after - begin <= FENCE_RUN:
        return None
    end = run_end(_INFO, text, after, final=final)
    return Fence(mark, after - begin, end) if end == len(text) or text[end] in LINE_BREAKS else None


def closing_fence(text: str, at: int, fence: Fence, *, final: bool) -> int | None:
    """The end of the line starting at ``at`` if that line closes ``fence``."""
    begin = run_end(_INDENT, text, at, final=final)
    if text[begin : begin + 1] != fence.mark:
        return None
    after = run_end(_FENCE_RUN[fence.mark], text, begin, final=final)
    if after - begin < fence.length:
        return None
    end = run_end(_INDENT, text, after, final=final)
    return end if end == len(text) or text[end] in LINE_BREAKS else None


def ends_sentence(text: str, at: int, end: int, *, start: int, final: bool) -> bool:
    """True if ``text[at:end]``, a SENTENCE_RUN, ends a sentence of the segment at ``start``."""
    run = text[at:end]
    if not _DENSE_ENDS.isdisjoint(run) or end == len(text):
        return True
    if not text[end].isspace():
        return False
    marks = run.rstrip(BRACKETS + EMPHASIS)
    mid_sentence_if_lower = marks != run or marks.endswith(("...", "…"))
    number_may_follow = False
    if run == ".":
        match = _LAST_WORD.search(text, max(start, at - _WORD_WINDOW), at)
        word = match.group().lower() if match else ""
        if word in ABBREVIATIONS or (_INITIALS.match(word) and word != "i"):
            return False
        number_may_follow = word in _BEFORE_NUMBERS
    if not (mid_sentence_if_lower or number_may_follow):
        return True
    if end + 1 >= len(text) and not final:
        raise IncompleteError
    following = text[end + 1 : end + 2]
    return not (following.islower() if mid_sentence_if_lower else following.isdigit())


def lead_end(text: str, at: int, end: int, *, at_line_start: bool) -> int:
    """Where a segment's leading white space ends, and at the start of a line the markers that follow it.

    Markers are those of lists, quotes, headings and tables. An answer for ``text[:end]`` is a place to go on
    from when there is more text.
    """
    match = _LEAD_WITHIN_LINE.match(text, at, end)
    begin = match.end() if match else at
    if at_line_start or _HAS_BREAK.search(text, at, begin):
        lead = _LEAD.match(text, begin, end)
        begin = lead.end() if lead else begin
    return begin


def trimmed(text: str) -> Span:
    """What is left without the white space at both ends."""
    end = len(text.rstrip())
    return Span(min(end, len(text) - len(text.lstrip())), end)


def last_resort(text: str, start: int, limit: int) -> int:
    """A cut for text without a boundary; ``text[limit]`` must exist.

    It is the last white space in the second half of ``start``..``limit``, or ``limit`` itself, moved back
    where it would part a combined character.
    """
    half = start + (limit - start) // 2
    for cut in range(limit, half, -1):
        if text[cut].isspace() and not _joined(text, cut, start=start):
            return cut
    for cut in range(limit, max(half, limit - CLUSTER), -1):
        if not _joined(text, cut, start=start):
            return cut
    return limit


def _joined(text: str, cut: int, *, start: int) -> bool:
    """True if the characters on both sides of ``cut`` are shown as one."""
    before, after = text[cut - 1], text[cut]
    if before + after == "\r\n" or "\u200d" in (before, after):
        return True
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return True
    if _is_regional(before) and _is_regional(after):  # a flag is a pair, counted from the start of the run
        first = cut - 1
        while first > start and _is_regional(text[first - 1]):
            first -= 1
        return (cut - first) % 2 == 1
    if unicodedata.combining(before) == VIRAMA and after.isalpha():
        return True
    continues = "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f"
    return continues or "\u1160" <= after <= "\u11ff" or unicodedata.category(after).startswith("M")


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
