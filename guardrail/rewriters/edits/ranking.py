"""Orders edits and free rewrites by how likely the model finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["letters", "ranked"]

MIN_TOTAL = -4.0
"""Log-probability of a whole rewrite below which it is not proposed.

Chosen with the shipped verifier's threshold, on rated rewrites of held-out sentences (training/LOG.md).
"""

Floats = npt.NDArray[np.float32]


def ranked(scores: Mapping[str, Floats], *, source: str, toxic: Sequence[str], n: int) -> list[str]:
    """Up to ``n`` rewrites by their likelihood, none of which the model finds unlikely.

    ``scores`` has for each text the log-probability of each of its tokens and of its end. Copies of the
    source are left out, and what still has one of the ``toxic`` phrases in it comes last: it will hardly
    pass.
    """
    likely = [text for text in scores if _is_likely(text, scores[text], source)]
    phrases = [phrase.casefold() for phrase in toxic]

    def place(text: str) -> tuple[bool, float, str]:
        return any(phrase in text.casefold() for phrase in phrases), -float(scores[text].sum()), text

    return sorted(likely, key=place)[:n]


def letters(text: str) -> str:
    """Letters and digits alone, without case."""
    return "".join(character for character in text.casefold() if character.isalnum())


def _is_likely(text: str, score: Floats, source: str) -> bool:
    if letters(text) == letters(source):
        return False
    return bool(score.sum() >= MIN_TOTAL)
