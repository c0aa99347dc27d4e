"""Takes apart what is written as one word, turns back what is written backwards, spells out abbreviations.

A list of English words decides: a run of letters that is a word stays, one that is not is changed if that
makes words of all of it. The list (``research.detection.words_build``) is ordered by frequency.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from guardrail.detectors.reading import CharacterChange, Normalised, changed

__all__ = ["Words", "reworded"]

LIST = Path(__file__).parent.parent / "shipped" / "reading" / "words.txt"
COMMON = 3000  # of the list, those that may be parts of a joined word

# Whole words only: what stands next to these signs is code, a mention, an address or a file.
_WORD = re.compile(r"(?<![\w@.\\/=<>-])[a-z]{3,40}(?![\w@(\\/=<>]|[.-]\w)")
_LINE = re.compile(r"[^\r\n]+")
_LETTERS = re.compile(r"[a-z]+")
_HUMP = re.compile(r"[A-Z][a-z]*")
_CAMEL = re.compile(r"(?:[A-Z][a-z]*){2,}")
_MAX_PART = 14
_BITS_OF_ALL = 3.0  # the binary logarithm of the sum of 1 / (rank + 2) over the common words
# A joined word has at least as many parts and letters, and parts of this length on average: fewer are chance
# ("penis-tone") or the name of a thing ("DumbTerminal"). An "i" begins
# a sentence; inside a word it is a letter ("content-i-on").
_MIN_PARTS, _MIN_JOINED, _MEAN_PART = 3, 9, 2.5
_MIN_BACKWARDS = 5  # letters of a word that is turned back by itself
_BACKWARDS_SHARE = 0.6  # of the words of a line that is turned back

_SPELLED_OUT = {
    "diaf": "die in a fire",
    "foad": "fuck off and die",
    "gfy": "go fuck yourself",
    "gtfo": "get the fuck out",
    "kys": "kill yourself",
    "stfu": "shut the fuck up",
}
# Also a point of sale or a part of speech: an insult only after these.
_POS = re.compile(
    r"(?<![\w-])(?:you|u|ur|such a|fucking|worthless|lying|useless|stupid|dumb|lazy|total) pos(?![\w-])"
)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """Words with their ranks by frequency, 0 first."""

    ranks: Mapping[str, int]

    @classmethod
    def of(cls, words: Iterable[str]) -> Words:
        """The words in the order given."""
        return cls({word: rank for rank, word in enumerate(words)})

    @classmethod
    @cache
    def shipped(cls) -> Words:
        """The list inside this package."""
        lines = LIST.read_text(encoding="utf-8").splitlines()
        return cls.of(line for line in lines if not line.startswith("#"))

    def __contains__(self, word: str) -> bool:
        return word in self.ranks

    def parts(self, joined: str) -> list[str]:
        """The common words that a run of letters is made of, the likeliest way; empty if there is none."""
        best: list[float] = [0.0, *[math.inf] * len(joined)]
        lengths = [0] * (len(joined) + 1)
        for end in range(1, len(joined) + 1):
            for start in range(max(0, end - _MAX_PART), end):
                rank = self.ranks.get(joined[start:end], COMMON)
                if rank < COMMON and (cost := best[start] + math.log(rank + 2)) < best[end]:
                    best[end], lengths[end] = cost, end - start
        found: list[str] = []
        if best[-1] == math.inf:
            return found
        end = len(joined)
        while end:
            found.append(joined[end - lengths[end] : end])
            end -= lengths[end]
        return found[::-1]

    def gain(self, joined: str, bits: float) -> float:
        """What common words save in place of letters of ``bits`` each; -inf if letters are not words."""
        parts = self.parts(joined)
        return len(joined) * bits - sum(map(self._bits, parts)) if parts else -math.inf

    def inside(self, letters: str, bits: float) -> tuple[float, list[str]]:
        """The run of common words inside letters that saves most, and how much that is."""
        best = [0.0] * (len(letters) + 1)  # of a run that ends here
        lengths = [0] * (len(letters) + 1)
        for end in range(1, len(letters) + 1):
            for start in range(max(0, end - _MAX_PART), end):
                word = letters[start:end]
                if self.ranks.get(word, COMMON) < COMMON:
                    gain = best[start] + len(word) * bits - self._bits(word)
                    if gain > best[end]:
                        best[end], lengths[end] = gain, len(word)
        end = max(range(len(best)), key=best.__getitem__)
        gain, found = best[end], []
        while lengths[end]:
            found.append(letters[end - lengths[end] : end])
            end -= lengths[end]
        return gain, found[::-1]

    def _bits(self, word: str) -> float:
        """Bits to name a common word by its rank."""
        return math.log2(self.ranks[word] + 2) + _BITS_OF_ALL


def reworded(reading: Normalised, original: str) -> Normalised:
    """A reading in lower case with joined, reversed and abbreviated words as a reader understands them."""
    words = Words.shipped()
    reading = changed(reading, _backwards(reading.text, words))
    return changed(reading, _changes(reading, original, words))


def _backwards(text: str, words: Words) -> Iterator[CharacterChange]:
    """Lines and words that are words only when read backwards."""
    for line in _LINE.finditer(text):
        found = [match for match in _LETTERS.finditer(line[0]) if match[0] not in words]
        turned = [match for match in found if match[0][::-1] in words]
        count = len(_LETTERS.findall(line[0])) if turned else 0
        if len(turned) >= 2 and len(turned) >= _BACKWARDS_SHARE * count:
            yield CharacterChange(line.start(), line.end(), line[0][::-1], backwards=True)
            continue
        for match in turned:
            start, end = line.start() + match.start(), line.start() + match.end()
            if len(match[0]) >= _MIN_BACKWARDS and _WORD.fullmatch(text, start, end):
                yield CharacterChange(start, end, match[0][::-1], backwards=True)


def _changes(reading: Normalised, original: str, words: Words) -> Iterator[CharacterChange]:
    """Abbreviations spelled out and joined words apart."""
    spots = {match.end() - 3 for match in _POS.finditer(reading.text)} if " pos" in reading.text else set()
    for match in _WORD.finditer(reading.text):
        word, start = match[0], match.start()
        if word in _SPELLED_OUT:
            yield CharacterChange(start, match.end(), _SPELLED_OUT[word])
        elif start in spots:
            yield CharacterChange(start, match.end(), "piece of shit")
        elif word not in words:
            for place in _places(word, reading, start, original, words):
                yield CharacterChange(start + place, start + place + 1, f" {word[place]}")


def _places(word: str, reading: Normalised, start: int, original: str, words: Words) -> list[int]:
    """Where blanks belong in a word that is none."""
    cased = "".join(original[place] for place in reading.starts[start : start + len(word)])
    if _CAMEL.fullmatch(cased) and not cased.isupper():
        parts = [match[0].lower() for match in _HUMP.finditer(cased)]
        is_made_up = all(part in words for part in parts)
    else:
        parts = words.parts(word) if len(word) >= _MIN_JOINED else []
        is_made_up = bool(parts)
    if not is_made_up or "i" in parts[1:] or len(parts) < _MIN_PARTS or len(word) < _MEAN_PART * len(parts):
        return []
    return [sum(map(len, parts[:count])) for count in range(1, len(parts))]
