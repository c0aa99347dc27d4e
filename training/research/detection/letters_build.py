"""Builds the model of English letters by which ids are read: ``guardrail/structured/letters.txt``.

Two letters predict the next. Counts are of the words in a tokenizer's vocabulary, in which common words come
first and weigh more, and of the word list of toxic words, which weigh most: they are what must not be missed.

    python -m research.detection.letters_build
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import guardrail

__all__ = ["LETTERS", "build_letters", "letters_text", "word_weights"]

PACKAGE = Path(guardrail.__file__).parent
DETECTOR = PACKAGE / "shipped" / "detector"
LETTERS = PACKAGE / "structured" / "letters.txt"
ALPHABET = "abcdefghijklmnopqrstuvwxyz_"
WORD = re.compile(r"[a-z]{2,}")
COMMON_WORDS = 4000
COMMON_WEIGHT = 20.0
TOXIC_WEIGHT = 100.0
SMOOTHING = 4.0  # pseudo-counts from the shorter context
MAX_COST = 35  # one character in base 36


def word_weights(folder: Path = DETECTOR) -> dict[str, float]:
    """The weight of each word in a detector's folder."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    weights: defaultdict[str, float] = defaultdict(float)
    ranked = (word for word in sorted(vocabulary, key=vocabulary.__getitem__) if WORD.fullmatch(word))
    for rank, word in enumerate(ranked):
        weights[word] = max(1.0, COMMON_WEIGHT * (1 - rank / COMMON_WORDS))
    for line in (folder / "lexicon.txt").read_text(encoding="utf-8").splitlines():
        word = line.split("\t")[0]
        if WORD.fullmatch(word):
            weights[word] += TOXIC_WEIGHT
    return weights


def build_letters(weights: Mapping[str, float]) -> dict[str, str]:
    """For each pair of letters, half bits of each letter behind it; ``_`` is where a word begins or ends."""
    triples: defaultdict[str, float] = defaultdict(float)
    for word, weight in weights.items():
        framed = f"__{word}_"
        for at in range(len(word) + 1):
            triples[framed[at : at + 3]] += weight
    pairs, letters, first, before = (defaultdict[str, float](float) for _ in range(4))
    for triple, count in triples.items():
        pairs[triple[1:]] += count
        letters[triple[2]] += count
        first[triple[1]] += count
        before[triple[:2]] += count
    total = sum(letters.values()) + len(ALPHABET)

    def half_bits(triple: str) -> int:
        share = (letters[triple[2]] + 1) / total
        share = (pairs[triple[1:]] + SMOOTHING * share) / (first[triple[1]] + SMOOTHING)
        share = (triples[triple] + SMOOTHING * share) / (before[triple[:2]] + SMOOTHING)
        return min(MAX_COST, round(-2 * math.log2(share)))

    return {
        pair: "".join("0123456789abcdefghijklmnopqrstuvwxyz"[half_bits(pair + letter)] for letter in ALPHABET)
        for pair in (one + two for one in ALPHABET for two in ALPHABET)
        if pair[1] != "_" or pair == "__"
    }


def letters_text(rows: Mapping[str, str]) -> str:
    """The file: the alphabet, then a pair of letters and its row per line."""
    return "\n".join([ALPHABET, *(f"{pair} {row}" for pair, row in rows.items())]) + "\n"


if __name__ == "__main__":
    LETTERS.write_text(letters_text(build_letters(word_weights())), encoding="ascii")
