"""What is read of text that has far more tokens than language has: marks, digits, codes, foreign scripts.

An encoder's cost grows with tokens, and such text has several times as many to a character as prose. Words
are never left out: only the inside of long runs of tokens in which there is nothing to read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from guardrail.detectors.scripts import count_uncased, has_letter
from guardrail.detectors.windows import Encoding

__all__ = ["is_dense", "max_tokens", "thinned"]

# English prose has .2 tokens to a character, other languages in Latin script up to .4 with its vocabulary.
_TOKENS_PER_CHARACTER = 0.4
# A letter without capitals may be a word, and is a token if the model knows its script.
_TOKENS_PER_UNCASED = 1.0
_SPARE_TOKENS = 6
# Kept at both ends of a run in which there is nothing to read.
_KEPT = 2
# A word is spelled out if it has more pieces than this, and each is shorter than this on average: words
# that are only glued together have longer ones.
_MAX_PIECES = 4
_MIN_PIECE = 2.2
# Fewer letters are a scrap, as codes, paths of drawings and dumps are full of; it is read next to a word.
_MIN_LETTERS = 3


def max_tokens(text: str, *, scripts: Sequence[str]) -> int:
    """As many tokens as language in these scripts has for a text of this length, and some to spare."""
    uncased = count_uncased(text, scripts)
    cased = _TOKENS_PER_CHARACTER * (len(text) - uncased)
    return int(_SPARE_TOKENS + cased + _TOKENS_PER_UNCASED * uncased)


def is_dense(encoding: Encoding, text: str, *, scripts: Sequence[str]) -> bool:
    """True if a text has more tokens than language in these scripts has."""
    return len(encoding) > max_tokens(text, scripts=scripts)


def thinned(encoding: Encoding, text: str, *, scripts: Sequence[str]) -> Encoding:
    """The encoding of a dense text without the inside of runs in which no word of ``scripts`` stands.

    If it is still dense then, the shortest tokens go too, until it is not: words of the vocabulary, and those
    that are glued together, have long ones. A text that is not dense stays as it is.
    """
    limit = max_tokens(text, scripts=scripts)
    if len(encoding) <= limit:
        return encoding
    encoding = _chosen(encoding, ~_inside(~_is_readable(encoding, text, scripts)))
    if len(encoding) <= limit:
        return encoding
    is_kept = np.zeros(len(encoding), dtype=np.bool_)
    is_kept[np.argsort(encoding.starts - encoding.ends, kind="stable")[:limit]] = True
    return _chosen(encoding, is_kept)


def _chosen(encoding: Encoding, kept: npt.NDArray[np.bool_]) -> Encoding:
    return Encoding(
        encoding.ids[kept],
        encoding.cases[kept],
        encoding.starts[kept],
        encoding.ends[kept],
        encoding.words[kept],
    )


def _is_readable(encoding: Encoding, text: str, scripts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """For each token, whether its word is not a scrap and not spelled out, (tokens,)."""
    firsts = np.flatnonzero(np.diff(encoding.words, prepend=-1))  # (words,)
    pieces = np.diff(firsts, append=len(encoding))
    starts, ends = encoding.starts[firsts], encoding.ends[firsts + pieces - 1]
    is_spelled_out = (pieces > _MAX_PIECES) & (ends - starts < _MIN_PIECE * pieces)
    readable = [
        not spelled and not _is_scrap(word := text[start:end]) and has_letter(word, scripts)
        for start, end, spelled in zip(starts.tolist(), ends.tolist(), is_spelled_out.tolist(), strict=True)
    ]
    return np.repeat(np.array(readable, dtype=np.bool_), pieces)


def _is_scrap(word: str) -> bool:
    """True for very few letters of a script with capitals; in others one character may be a word."""
    letters = [character for character in word if character.isalpha()]
    return len(letters) < _MIN_LETTERS and any(c.lower() != c.upper() for c in letters)


def _inside(unreadable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """For each token, whether it stands more than _KEPT tokens from both ends of its run, (tokens,)."""
    inside = unreadable.copy()
    for shift in range(1, _KEPT + 1):
        inside[shift:] &= unreadable[:-shift]
        inside[:-shift] &= unreadable[shift:]
    inside[:_KEPT] = False
    inside[len(inside) - min(_KEPT, len(inside)) :] = False
    return inside
