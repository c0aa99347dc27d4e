"""From logits to scores that mean a share of votes, and the thresholds of a preset on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ScoredTexts", "choose_thresholds", "platt", "scores"]

Floats = npt.NDArray[np.floating]
RIDGE = 1e-3
MIN_TEXTS = 60
GRID = tuple(place / 100 for place in range(5, 100))


def platt(logits: Floats, shares: Floats, weights: Floats) -> dict[str, float]:
    """``a`` and ``b`` such that ``sigmoid(a * logit + b)`` is the expected share of votes.

    Weighted logistic regression on soft targets (Platt 1999), with a slight pull to a=1, b=0, which is also
    the answer without any rows. Plain Newton steps can jump to and fro for ever if logits are large.
    """
    from scipy.optimize import minimize

    design = np.stack([logits, np.ones_like(logits)], axis=1).astype(float)  # (rows, 2)
    start = np.array([1.0, 0.0])

    total = max(1.0, float(weights.sum()))  # of the order of 1, the first step is a small one

    def loss(line: Floats) -> tuple[float, Floats]:
        """Mean cross-entropy with the pull, and its gradient."""
        z = design @ line
        entropy = weights @ (np.logaddexp(0.0, z) - shares * z)
        gradient = design.T @ (weights * (_sigmoid(z) - shares)) + RIDGE * (line - start)
        return float(entropy + RIDGE / 2 * ((line - start) ** 2).sum()) / total, gradient / total

    best = minimize(loss, start, jac=True, method="BFGS").x
    return {"a": round(float(best[0]), 6), "b": round(float(best[1]), 6)}


def scores(logits: Floats, calibration: Mapping[str, Mapping[str, float]]) -> Floats:
    """Calibrated scores, (rows, labels), of logits whose columns are in the calibration's order."""
    slopes, offsets = (np.array([constants[key] for constants in calibration.values()]) for key in ("a", "b"))
    return _sigmoid(logits * slopes + offsets)


@dataclass(frozen=True, slots=True, eq=False)
class ScoredTexts:
    """The score of each text, and whether a word of it is marked, both of shape (texts,)."""

    scores: Floats
    marked: npt.NDArray[np.bool_]

    def flagged(self, alone: float, marked: float) -> float:
        """The share that is flagged from these scores on, without and with a marked word; 0 of no texts."""
        flags = (self.scores >= alone) | (self.marked & (self.scores >= marked))
        return float(flags.mean()) if len(flags) else 0.0


def choose_thresholds(
    harmless: Mapping[str, ScoredTexts], allowed: Mapping[str, float], *, hostile: ScoredTexts
) -> dict[str, float]:
    """``alone`` and ``marked``: from which score a text is flagged, and from which if a word of it is marked.

    Of all pairs in hundredths at which no harmless set is flagged more often than ``allowed``, the one that
    flags most of the hostile texts; of equals the higher one. Sets of fewer than ``MIN_TEXTS`` texts decide
    nothing.
    """
    counted = {name: texts for name, texts in harmless.items() if len(texts.scores) >= MIN_TEXTS}
    best, most = (0.99, 0.99), -1.0
    for alone in GRID:
        for marked in (limit for limit in GRID if limit <= alone):
            holds = all(texts.flagged(alone, marked) <= allowed[name] for name, texts in counted.items())
            if holds and (recall := hostile.flagged(alone, marked)) >= most:
                best, most = (alone, marked), recall
    return {"alone": best[0], "marked": best[1]}


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(x, -60, 60)))
    return result
