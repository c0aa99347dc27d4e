"""What of a chat model's answer is the rewrite: models think aloud, greet, quote, explain, and refuse.

The rules are for English wrappings, and take away only what the text itself does not have. What they miss
stays in the candidate, which the guard's checks then refuse.
"""

from __future__ import annotations

import itertools
import re

__all__ = ["candidate_of"]

ROUNDS = 4
"""Wrappings inside each other that are taken off."""
SPARE_CHARACTERS = 2000
"""By how much an answer, thoughts apart, may be longer than four times its text."""
TAIL = 200

_THOUGHT_START = re.compile(r"<(?:think|thinking|thought|reasoning|reflection)>", re.IGNORECASE)
# A template may open the thought itself, so that only its end is in the answer.
_THOUGHT_END = re.compile(
    r"</(?:think|thinking|thought|reasoning|reflection)>|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_END = re.compile(r".*</(?:think|thinking|thought|reasoning|reflection)>", re.DOTALL | re.IGNORECASE)
_THOUGHT_START = re.compile(r"<(?:think|thinking|thought|reasoning|reflection)>", re.IGNORECASE)
_CHANNEL = re.compile(r".*<\|channel\|>final<\|message\|>", re.DOTALL)
_END = re.compile(r"(?:\s*(?:<\|[^<>|\n]{1,64}\|>|<｜[^<>｜\n]{1,64}｜>|</s>|<eos>|<end_of_turn>))+\s*$")
_FENCED = re.compile(r"(`{3,}|~{3,})[^\n`]*\n(.*?)\n?\1", re.DOTALL)
_ASSENT = re.compile(
    r"(?:sure|certainly|of course|absolutely|okay|ok|yes|got it|understood)\b", re.IGNORECASE
)
_ASSENT_LINE = re.compile(rf"{_ASSENT.pattern}[^\n\w]*\n+", re.IGNORECASE)
_KIND = r"(?:rewritten|rewrite|revised|reworded|rephrased|neutral|polite|civil|respectful|cleaned|detoxified)"
_THING = r"(?:text|version|sentence|message|comment|rewrite|revision|output|answer|response|reply|result)"
_PREFACE = re.compile(
    rf"[*_#\s]*(?:{_ASSENT.pattern}[^:\n\w]{{0,3}}\s*)?(?:"
    rf"(?:here(?:['’]s| is| are)|this is|below is)\b[^:\n]{{0,80}}"
    rf"|(?:(?:the|a|my)\s+)?{_KIND}(?:\s+{_THING})?[^:\n\w]{{0,4}}"
    rf"|{_THING}[^:\n\w]{{0,4}}"
    r"):[*_]*\s*",
    re.IGNORECASE,
)
_COMMENT = re.compile(
    r"[*_(\[\s]*(?:note\b|explanation\b|changes\b|i\s+(?:have\s+|'ve\s+)?(?:removed|changed|replaced|kept|rewrote|"
    r"rephrased|softened|avoided|made|used|also)\b|this\s+(?:version|rewrite|revision|text)\b|let me know\b|"
    r"(?:if|would) you\b.{0,40}\b(?:like|want|need|prefer)\b|please let me know\b|is there anything\b|"
    r"(?:here (?:is|are)|another|alternative))",
    re.IGNORECASE,
)
_QUOTES = (
    ('"', '"'), ("“", "”"), ("„", "“"), ("«", "»"), ("»", "«"), ("'", "'"), ("‘", "’"), ("`", "`"),
    ("**", "**"), ("*", "*"), ("_", "_"),
)  # fmt: skip
_APOSTROPHE = re.compile(r"(?<=\w)['’](?=\w)")
_UNABLE = (
    r"(?:can(?:no|['’])t|can not|could\s?n['’]t|won['’]t|will not|unable to|not able to|not comfortable)"
)
_REFUSED = re.compile(
    r"[*_\s]*(?:"
    r"(?:i(?:['’]m| am)\s+(?:very |really |so )?)?(?:sorry|afraid|apologi[sz]e)\b"
    rf"[^\n]{{0,60}}?\b(?:i\s+)?{_UNABLE}\b"
    rf"|i(?:\s+am|['’]m)?\s+{_UNABLE}\s+(?:\w+\s+){{0,2}}?"
    r"(?:help|assist|rewrite|rephrase|reword|fulfil+|comply|complete|provide|process|produce|generate|create|"
    r"continue|engage|respond|answer|support|do that|do this|repeat|write)"
    r"|as an? (?:ai|artificial|language model|assistant)\b"
    r"|i(?:['’]m| am) (?:just |only )?an? (?:ai|assistant|language model)\b"
    r")",
    re.IGNORECASE,
)


def candidate_of(answer: str, *, text: str) -> str | None:
    """The rewrite of ``text`` in an answer; None if it has none, or refuses to give one.

    Taken off are, in this order and as often as they are inside each other: thoughts, marks of the end of a
    turn, a preface ("Here is the rewrite:"), a code fence, quotation marks, and comments after the rewrite.
    """
    answer = _unthought(answer)
    if len(answer) > 4 * len(text) + SPARE_CHARACTERS:
        return None
    for _ in range(ROUNDS):
        shorter = _unwrapped(answer, text)
        if shorter == answer:
            break
        answer = shorter
    if not answer or (_REFUSED.match(answer) and not _REFUSED.search(text)):
        return None
    try:
        answer.encode()
    except UnicodeEncodeError:  # half a character, as JSON can hold it
        return None
    return answer


def _unthought(answer: str) -> str:
    """The answer without what a model thinks before it; empty if it never came to an end with that."""
    ends = [match.end() for match in _THOUGHT_END.finditer(answer)]
    answer = answer[ends[-1] :] if ends else answer
    if thought := _THOUGHT_START.search(answer):
        answer = answer[: thought.start()]
    answer = answer.strip()
    return (answer[:-TAIL] + _END.sub("", answer[-TAIL:])).strip()


def _unwrapped(answer: str, text: str) -> str:
    """The answer without its outermost wrapping, of those that the text does not have."""
    answer = _without_preface(answer, text)
    if "```" not in text and "~~~" not in text and len(blocks := _FENCED.findall(answer)) == 1:
        answer = blocks[0][1].strip()
    if "\n" not in text:
        answer = _without_comments(answer)
    return _unquoted(answer, text).strip()


def _without_preface(answer: str, text: str) -> str:
    if (assent := _ASSENT_LINE.match(answer)) and not _ASSENT.match(text):
        answer = answer[assent.end() :]
    preface = _PREFACE.match(answer)
    if preface is None:
        return answer
    last = re.findall(r"\w+", preface.group())[-1]
    # "Result: 3 errors" is not a preface if the text says "damned result: 3 errors".
    is_own = re.search(rf"\b{re.escape(last)}\W{{0,4}}:", text, re.IGNORECASE)
    return answer if is_own else answer[preface.end() :]


def _without_comments(answer: str) -> str:
    """The first lines of the answer, up to one that speaks about it."""
    first, *rest = answer.strip().split("\n")
    code_lines = itertools.takewhile(lambda line: not _COMMENT.match(line), rest)
    return "\n".join((first, *code_lines))


def _unquoted(answer: str, text: str) -> str:
    for opening, closing in _QUOTES:
        inside = answer[len(opening) : -len(closing)]
        is_long_enough = len(answer) >= len(opening) + len(closing)
        wraps = is_long_enough and answer.startswith(opening) and answer.endswith(closing)
        marks = _APOSTROPHE.sub("", inside)  # what is left may open or close a quotation
        if wraps and not text.startswith(opening) and opening not in marks and closing not in marks:
            return inside
    return answer
