"""Texts as token ids with exact offsets, cut into windows that fit an encoder. Nothing is truncated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = [
    "LETTER_CASES",
    "Encoding",
    "Window",
    "buckets",
    "encode",
    "letter_cases",
    "split_runs",
    "windows",
]

Integers = npt.NDArray[np.int64]

LETTER_CASES = 3
"""How a word is written: 0 lower case or no letter first, 1 capitalised, 2 two or more capitals."""

# WordPiece gives up on a run of more than 100 characters and calls all of it unknown.
_MAX_RUN = 100
_RUN = re.compile(rf"[^\s!-/:-@\[-`{{-~]{{{_MAX_RUN + 1},}}")
_SURROGATE = re.compile("[\ud800-\udfff]")
# Padded tokens in one pass of a model: rows times the longest row. More of them no longer fit the caches of a
# core: with 4096 a token of long rows costs 1.7 times as much.
_TOKENS_PER_PASS = 512
# What another pass costs, in tokens that are read for padding's sake alone.
_TOKENS_OF_A_PASS = 16
# A window starts at a word, unless the word began this many tokens earlier.
_MAX_STEP_BACK = 16


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """The tokens of one text without special ones.

    ``ids``, ``cases``, ``starts``, ``ends`` and ``words`` have shape (tokens,): token ids, letter cases,
    character offsets into the text, and the number of the word that a token belongs to.
    """

    ids: Integers
    cases: Integers
    starts: Integers
    ends: Integers
    words: Integers

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens ``start`` to ``end`` of the encoding number ``owner``."""

    owner: int
    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start


def encode(tokenizer: Tokenizer, text: str) -> Encoding:
    """The tokens of a text of any length and content; a lone surrogate counts as an unreadable character."""
    spaced, inserted = split_runs(text)
    encoded = tokenizer.encode(spaced, add_special_tokens=False)
    offsets = np.array(encoded.offsets, dtype=np.int64).reshape(-1, 2)
    offsets -= np.searchsorted(inserted, offsets)
    return Encoding(
        ids=np.array(encoded.ids, dtype=np.int64),
        cases=np.array(letter_cases(spaced, encoded.offsets, encoded.word_ids), dtype=np.int64),
        starts=offsets[:, 0],
        ends=offsets[:, 1],
        words=np.array(encoded.word_ids, dtype=np.int64),
    )


def letter_cases(text: str, offsets: Sequence[tuple[int, int]], words: Sequence[int | None]) -> list[int]:
    """The letter case of each token's word, 0 to ``LETTER_CASES`` - 1; special tokens have none."""
    cases: list[int] = []
    current: int | None = None
    case = 0
    for place, ((start, _), word) in enumerate(zip(offsets, words, strict=True)):
        if word is None or word != current:
            current, case = word, 0
            if word is not None and text[start : start + 1].isupper():
                last = place
                while last + 1 < len(words) and words[last + 1] == word:
                    last += 1
                whole = text[start : offsets[last][1]]
                case = 2 if len(whole) > 1 and whole.isupper() else 1
        cases.append(case)
    return cases


def windows(encoding: Encoding, *, owner: int, size: int) -> Iterator[Window]:
    """Windows of at most ``size`` tokens that overlap by a quarter; an empty one for no tokens."""
    start, total = 0, len(encoding)
    while start + size < total:
        yield Window(owner, start, start + size)
        start = _word_start(encoding, start + size - size // 4, floor=start + 1)
    yield Window(owner, start, total)


def buckets(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in order of length, in groups whose padded size bounds the memory of one pass.

    A group also ends if padding it to the next length would cost more than another pass does.
    """
    bucket: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        length = lengths[index]
        if bucket and (
            (len(bucket) + 1) * length > _TOKENS_PER_PASS
            or len(bucket) * (length - lengths[bucket[-1]]) > _TOKENS_OF_A_PASS
        ):
            yield bucket
            bucket = []
        bucket.append(index)
    if bucket:
        yield bucket


def _word_start(encoding: Encoding, position: int, *, floor: int) -> int:
    for start in range(position, max(floor, position - _MAX_STEP_BACK) - 1, -1):
        if encoding.words[start] != encoding.words[start - 1]:
            return start
    return position


def split_runs(text: str) -> tuple[str, Integers]:
    """The text with a space after every 100 characters of a longer run, and the places of those spaces.

    Lone surrogates, which tokenizers refuse, become replacement characters.
    """
    text = _SURROGATE.sub("\ufffd", text)
    inserted: list[int] = []
    pieces: list[str] = []
    done = 0
    for match in _RUN.finditer(text):
        for cut in range(match.start() + _MAX_RUN, match.end(), _MAX_RUN):
            pieces += (text[done:cut], " ")
            inserted.append(cut + len(inserted))
            done = cut
    return "".join((*pieces, text[done:])), np.array(inserted, dtype=np.int64)
