"""Orders edits and free rewrites by how likely the model finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["letters", "ranked"]

MIN_WORST = -5.0
"""Log-probability of its least likely token below which an edit is not proposed: something is missing."""
MIN_MEAN = -1.6
"""Mean log-probability per token below which an edit is not proposed."""

Floats = npt.NDArray[np.float32]


def ranked(
    scores: Mapping[str, Floats], *, source: str, toxic: Sequence[str], free: Sequence[str], n: int
) -> list[str]:
    """Up to ``n`` candidates: the greedy rewrite and likely edits by their likelihood, then other samples.

    ``scores`` has for each text the log-probability of each of its tokens and of its end; ``free`` are the
    model's own rewrites, the greedy one first. Copies of the source are left out, and what still has one of
    the ``toxic`` phrases in it comes last: it will hardly pass.
    """
    free = [text for text in free if letters(text) != letters(source)]
    known = {text for text in free if text in scores}
    likely = [text for text in scores if text not in free and _reads_well(text, scores, source)]
    ordered = sorted([*known, *likely], key=lambda text: (-float(scores[text].sum()), text))
    samples = [text for text in free if text not in known]
    room = max(1, n - min(len(samples), n // 3))
    mixed = dict.fromkeys([*ordered[:room], *samples, *ordered[room:]])
    phrases = [phrase.casefold() for phrase in toxic]
    return sorted(mixed, key=lambda text: any(phrase in text.casefold() for phrase in phrases))[:n]


def letters(text: str) -> str:
    """Letters and digits alone, without case."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _reads_well(text: str, scores: Mapping[str, Floats], source: str) -> bool:
    if letters(text) == letters(source):
        return False
    score = scores[text]
    return bool(score.min() >= MIN_WORST and score.mean() >= MIN_MEAN)
