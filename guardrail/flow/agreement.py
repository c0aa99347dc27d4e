"""How far candidates agree with each other: what a rewriter says in many ways is what it is sure of.

Minimum Bayes risk decoding (Kumar and Byrne 2004, for sampled candidates Eikema and Aziz 2022): the best
candidate is not the most likely one but the one closest to all others. Closeness is chrF (Popovic 2015) with
n-grams of up to four characters and F1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["agreement"]

LONGEST = 4

Grams = list[Counter[str]]


def agreement(texts: Sequence[str]) -> list[float]:
    """For each text its mean closeness to all of them, itself included, 0..1; one text alone gets 1."""
    grams = [_grams(text) for text in texts]
    closeness = [[0.0] * len(texts) for _ in texts]
    for i, mine in enumerate(grams):
        closeness[i][i] = 1.0
        for j in range(i):
            closeness[i][j] = closeness[j][i] = _closeness(mine, grams[j])
    return [sum(row) / len(row) for row in closeness]


def _grams(text: str) -> Grams:
    """Character n-grams of each length, without white space and case."""
    letters = "".join(text.casefold().split())
    return [
        Counter(letters[start : start + n] for start in range(len(letters) - n + 1))
        for n in range(1, LONGEST + 1)
    ]


def _closeness(a: Grams, b: Grams) -> float:
    """The mean F1 over lengths that either text has n-grams of; two empty texts are alike."""
    sizes = [(x, y, x.total() + y.total()) for x, y in zip(a, b, strict=True)]
    scores = [2 * (x & y).total() / size for x, y, size in sizes if size]
    return sum(scores) / len(scores) if scores else 1.0
