"""What decides whether a text counts as clean: a scorer with a threshold, fixed before the evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Judge"]

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judge:
    """A named scorer with its threshold; ``score`` maps texts to probabilities of "toxic", one each."""

    name: str
    threshold: float
    score: Callable[[Sequence[str]], Scores]

    def scores(self, texts: Sequence[str]) -> Scores:
        """Shape (n,), 0..1."""
        return self.score(texts) if texts else np.zeros(0)

    def finds_clean(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Shape (n,), true if the score is below the threshold."""
        return self.scores(texts) < self.threshold
