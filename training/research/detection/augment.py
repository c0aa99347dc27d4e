"""Other ways of writing a text: letter case, punctuation, frames around it, and spellings that hide words.

Every change keeps, character by character, whether it lies in a toxic span. Both classes get the same
changes, so that no style tells the label.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Marked", "concatenate", "frame", "obfuscate", "restyle"]

CLEAN, TOXIC, UNKNOWN = 0, 1, 2

LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7", "b": "8", "l": "1"}
HOMOGLYPHS = dict(zip("aceiopsxyhun", "асеіорѕхуһυո", strict=True))
ZERO_WIDTH = ("\u200b", "\u200c", "\u200d", "\u2060", "\u00ad")
LEADS = (
    "User: {}", "Assistant: {}", "A: {}", "B: {}", "Anna: {}", "#Person1#: {}", "> {}", "- {}", "* {}",
    "1. {}", "Q: {}", "He said: {}", "Comment: {}", "Re: {}", "Update: {}", "Honestly, {}",
    "I mean, {}", "So, {}", "Well, {}", "lol {}", "And {}", "But {}", "Ok, {}", "Look, {}",
    "Translate this: {}", "Continue this text: {}", "Summarise: {}", "What do you think of this? {}",
    "Please fix the grammar: {}", "Sure, here it is: {}", "Here is my reply: {}", "@user {}",
    "RT @user_77: {}", "\"{}\"", "{} Thoughts?", "{} #news", "{} http://t.co/a1b2c3", "{} lol",
    "{} ...", "{} Why?", "{} :)", "{} \U0001f602", "{} right?", "{} (edited)", "{} Thanks.",
    "I was told: {}", "Line 4 says: {}",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Marked:
    """A text with one mark per character: 0 clean, 1 toxic, 2 nobody said."""

    text: str
    marks: bytes

    @classmethod
    def of(cls, text: str, spans: Sequence[tuple[int, int]] | None) -> Marked:
        """A text with its toxic character ranges; ``None`` leaves every mark unknown."""
        if spans is None:
            return cls(text, bytes([UNKNOWN]) * len(text))
        marks = bytearray(len(text))
        for start, end in spans:
            marks[start:end] = bytes([TOXIC]) * len(marks[start:end])
        return cls(text, bytes(marks))

    def sub(self, pattern: str | re.Pattern[str], replace: str | Callable[[re.Match[str]], str]) -> Marked:
        """``re.sub``; a replacement carries the highest mark of what it replaces."""
        pieces: list[str] = []
        marks: list[bytes] = []
        last = 0
        for match in re.finditer(pattern, self.text):
            start, end = match.span()
            new = match.expand(replace) if isinstance(replace, str) else replace(match)
            mark = max(self.marks[start:end] or self.marks[max(0, start - 1) : start + 1] or b"\0")
            pieces += [self.text[last:start], new]
            marks += [self.marks[last:start], bytes([mark]) * len(new)]
            last = end
        return Marked("".join([*pieces, self.text[last:]]), b"".join([*marks, self.marks[last:]]))

    def recase(self, change: Callable[[str], str]) -> Marked:
        """The text in another letter case; characters whose case changes their number stay as they are."""
        changed = change(self.text)
        if len(changed) != len(self.text):
            changed = "".join(new if len(new := change(old)) == 1 else old for old in self.text)
        return Marked(changed, self.marks)


def concatenate(parts: Sequence[Marked], joint: str) -> Marked:
    """The parts in order with ``joint`` between them."""
    return Marked(
        joint.join(part.text for part in parts), bytes(len(joint)).join(part.marks for part in parts)
    )


def _detach(text: Marked) -> Marked:
    """Punctuation set apart by blanks, as in tokenised corpora."""
    spaced = text.sub(r"(?<=\w)(n't|'(?:s|re|ve|ll|m|d))\b", r" \1").sub(
        r"(?<=\S)([.,!?;:()\"])(?=\s|$|[.!?])", r" \1"
    )
    return spaced.sub(r"(?<=\s)([(\"])(?=\S)", r"\1 ")


def _attach(text: Marked) -> Marked:
    """Punctuation joined to its word again."""
    joined = (
        text.sub(r" +([.,!?;:)])", r"\1")
        .sub(r" +(n't|'\s?(?:s|re|ve|ll|m|d|t)\b)", r"\1")
        .sub(r"``\s?|\s?''", '"')
    )
    return joined.sub(r"'\s+(?=(?:s|re|ve|ll|m|d|t)\b)", "'")


def _capitalise(text: str) -> str:
    return re.sub(r"(^|[.!?]\s+)([a-z])", lambda m: m.group(1) + m.group(2).upper(), text.lower())


def restyle(text: Marked, rng: random.Random) -> Marked:
    """The text in a drawn combination of letter case and punctuation."""
    draw = rng.random()
    if draw < 0.30:
        text = _detach(text)
    elif draw < 0.58:
        text = _attach(text)
    elif draw < 0.66:
        text = text.sub(r"[.,!?;:\"]+(?=\s|$)", "")
    if rng.random() < 0.20:
        text = text.sub(r"[\s.!?]+$", lambda _: rng.choice(["", "", ".", "!", "!!", "..."]))
    draw = rng.random()
    if draw < 0.32:
        return text.recase(str.lower)
    if draw < 0.52:
        return text.recase(_capitalise)
    if draw < 0.56:
        return text.recase(str.upper)
    return text.recase(str.title) if draw < 0.575 else text


def frame(text: Marked, rng: random.Random) -> Marked:
    """The text behind a speaker, a list mark or a request, or before an ending; none tells the class."""
    before, after = rng.choice(LEADS).split("{}")
    return Marked(before + text.text + after, bytes(len(before)) + text.marks + bytes(len(after)))


def obfuscate(text: Marked, rng: random.Random) -> Marked:
    """One to three words spelled so as to hide them: mostly the toxic ones, where they are marked."""
    words = [match.span() for match in re.finditer(r"[^\W\d_]{3,}", text.text)]
    toxic = [span for span in words if TOXIC in text.marks[slice(*span)]]
    pool = toxic if toxic and rng.random() < 0.85 else words
    chosen = sorted(rng.sample(pool, min(len(pool), rng.choice([1, 1, 2, 3]))), reverse=True)
    trick = rng.choice(TRICKS)
    for start, end in chosen:
        new = trick(text.text[start:end], rng)
        marks = bytes([max(text.marks[start:end])]) * len(new)
        text = Marked(
            text.text[:start] + new + text.text[end:], text.marks[:start] + marks + text.marks[end:]
        )
    return text


def _leet(word: str, rng: random.Random) -> str:
    return "".join(
        rng.choice(LEET[c.lower()]) if c.lower() in LEET and rng.random() < 0.6 else c for c in word
    )


def _homoglyph(word: str, rng: random.Random) -> str:
    return "".join(
        HOMOGLYPHS[c.lower()] if c.lower() in HOMOGLYPHS and rng.random() < 0.5 else c for c in word
    )


def _zero_width(word: str, rng: random.Random) -> str:
    return "".join(c + (rng.choice(ZERO_WIDTH) if rng.random() < 0.4 else "") for c in word)


def _spaced(word: str, rng: random.Random) -> str:
    return rng.choice([" ", ".", "-", "_", "*"]).join(word)


def _starred(word: str, rng: random.Random) -> str:
    inner = rng.sample(range(1, len(word)), k=max(1, (len(word) - 1) // 3))
    star = rng.choice("**#@")
    return "".join(star if i in inner else c for i, c in enumerate(word))


def _repeated(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word))
    return word[:place] + word[place - 1] * rng.randint(2, 5) + word[place:]


def _swapped(word: str, rng: random.Random) -> str:
    """A slip of the keyboard: two inner letters swapped, or one left out."""
    place = rng.randrange(1, len(word) - 1)
    if rng.random() < 0.5:
        return word[:place] + word[place + 1 :]
    return word[: place - 1] + word[place] + word[place - 1] + word[place + 1 :]


TRICKS = (_leet, _leet, _homoglyph, _zero_width, _spaced, _starred, _starred, _repeated, _swapped)
