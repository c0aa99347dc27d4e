"""From logits to scores that mean a share of votes, and one threshold on them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

__all__ = ["choose_threshold", "platt", "scores"]

Floats = npt.NDArray[np.floating]
STEPS = 60
RIDGE = 1e-3


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


def choose_threshold(highest: Mapping[str, Floats], allowed: Mapping[str, float]) -> float:
    """The lowest threshold, in hundredths, at which no clean set is flagged more often than allowed.

    ``highest`` holds the highest score of each text by set; ``allowed`` the share of each that may be
    flagged.
    """
    needed = [_lowest(highest[name], share) for name, share in allowed.items() if len(highest.get(name, ()))]
    return min(0.99, max(0.05, float(np.ceil(100 * max(needed, default=0.5)) / 100)))


def _lowest(values: Floats, share: float) -> float:
    """A threshold above which at most ``share`` of the values lie."""
    ordered = np.sort(np.asarray(values))[::-1]
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]) + 1e-6


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1 / (1 + np.exp(-np.clip(x, -60, 60)))
    return result
