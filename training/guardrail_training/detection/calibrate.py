"""From logits to scores that mean a share of votes, and the thresholds of a preset on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CleanSet", "choose_thresholds", "platt", "scores"]

Floats = npt.NDArray[np.floating]
STEPS = 60
RIDGE = 1e-3
ALONE = 0.7
MIN_TEXTS = 60


def platt(logits: Floats, shares: Floats, weights: Floats) -> dict[str, float]:
    """``a`` and ``b`` such that ``sigmoid(a * logit + b)`` is the expected share of votes.

    Weighted logistic regression on soft targets by Newton's method (Platt 1999), with a slight pull to a=1,
    b=0, which is also the answer without any rows.
    """
    design = np.stack([logits, np.ones_like(logits)], axis=1).astype(float)  # (rows, 2)
    start = np.array([1.0, 0.0])
    best = start.copy()
    for _ in range(STEPS):
        expected = _sigmoid(design @ best)
        gradient = design.T @ (weights * (expected - shares)) + RIDGE * (best - start)
        curvature = (design * (weights * expected * (1 - expected))[:, None]).T @ design + RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        best = best - step * min(1.0, 2.0 / max(1e-9, float(np.abs(step).max())))
    return {"a": round(float(best[0]), 6), "b": round(float(best[1]), 6)}


def scores(logits: Floats, calibration: Mapping[str, Mapping[str, float]]) -> Floats:
    """Calibrated scores, (rows, labels), of logits whose columns are in the calibration's order."""
    slopes, offsets = (np.array([constants[key] for constants in calibration.values()]) for key in ("a", "b"))
    return _sigmoid(logits * slopes + offsets)


@dataclass(frozen=True, slots=True, eq=False)
class CleanSet:
    """Harmless texts: the score of each, and whether a word of it is marked, both of shape (texts,)."""

    scores: Floats
    marked: npt.NDArray[np.bool_]


def choose_thresholds(sets: Mapping[str, CleanSet], allowed: Mapping[str, float]) -> dict[str, float]:
    """``alone`` and ``marked``: from which score a text is flagged, and from which if a word of it is marked.

    Both are the lowest, in hundredths, at which no set is flagged more often than ``allowed``, of which the
    score alone may use ``ALONE``: the rest is for marked words, two weak witnesses in place of a strong one.
    Sets of fewer than ``MIN_TEXTS`` texts decide nothing.
    """
    counted = {name: part for name, part in sets.items() if len(part.scores) >= MIN_TEXTS}

    def holds(alone: float, marked: float, share: float) -> bool:
        return all(
            np.mean((part.scores >= alone) | (part.marked & (part.scores >= marked))) <= share * allowed[name]
            for name, part in counted.items()
        )

    grid = [place / 100 for place in range(5, 100)]
    alone = next((limit for limit in grid if holds(limit, limit, ALONE)), grid[-1])
    marked = next((limit for limit in grid if limit <= alone and holds(alone, limit, 1.0)), alone)
    return {"alone": alone, "marked": marked}


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(x, -60, 60)))
    return result
