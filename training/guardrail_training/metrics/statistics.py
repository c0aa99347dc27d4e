"""Figures from arrays: rates and means with their intervals, ranking quality, agreement of two rankings.

Pure functions; every figure that a table prints with an interval comes from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardrail.errors import UsageError

__all__ = [
    "RESAMPLES",
    "Mean",
    "Ranking",
    "Rate",
    "auc_interval",
    "bootstrap_mean",
    "expected_calibration_error",
    "rank_correlation",
    "ranking",
    "recall_at_false_positive_rate",
    "wilson_rate",
]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % percentile bootstrap interval over ``n`` values."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Rate:
    """A share in 0..1 of ``n`` cases with its 95 % Wilson interval."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well scores order positives before negatives, and what they decide at one threshold; all in 0..1.

    ``recall_at_1`` and ``recall_at_5`` are the recalls at most 1 % and 5 % false positives; ``f1``,
    ``recall`` and ``false_positives`` are at the threshold, and None if there is none.
    """

    positives: int
    negatives: int
    auc: float
    average_precision: float
    recall_at_1: float
    recall_at_5: float
    f1: float | None = None
    recall: float | None = None
    false_positives: float | None = None


def bootstrap_mean(values: Sequence[float] | Floats, *, seed: int, resamples: int = RESAMPLES) -> Mean:
    """The mean with a percentile bootstrap interval (Efron 1979); the same for the same seed.

    For the difference of two systems pass the differences per sentence: the bootstrap is then paired.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise UsageError("a mean over no values is undefined")
    generator = np.random.default_rng(seed)
    # One resample at a time: all at once would need resamples x n numbers.
    means = [float(array[generator.integers(0, array.size, array.size)].mean()) for _ in range(resamples)]
    low, high = np.quantile(means, [0.025, 0.975])
    return Mean(value=float(array.mean()), low=float(low), high=float(high), n=int(array.size))


def wilson_rate(hits: int, n: int) -> Rate:
    """The share ``hits / n`` with the score interval of Wilson (1927), which stays sensible at 0 and 1."""
    from scipy.stats import binomtest

    if not 0 <= hits <= n or n == 0:
        raise UsageError(f"a rate needs 0 <= hits <= n and n > 0, got {hits} of {n}")
    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return Rate(value=hits / n, low=float(interval.low), high=float(interval.high), n=n)


def auc_interval(
    labels: Sequence[bool] | Flags, scores: Sequence[float] | Floats, *, seed: int, resamples: int = 500
) -> Mean:
    """The area under the ROC curve, 0..1, with a percentile bootstrap interval within each class."""
    from scipy.stats import rankdata

    flags, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    positive, negative = values[flags], values[~flags]
    if not len(positive) or not len(negative):
        raise UsageError("an AUC needs texts of both classes")

    def area(above: Floats, below: Floats) -> float:
        ranks = rankdata(np.concatenate([above, below]))[: len(above)]
        return float((ranks.sum() - len(above) * (len(above) + 1) / 2) / (len(above) * len(below)))

    generator = np.random.default_rng(seed)
    areas = [
        area(generator.choice(positive, len(positive)), generator.choice(negative, len(negative)))
        for _ in range(resamples)
    ]
    low, high = np.quantile(areas, [0.025, 0.975])
    return Mean(value=area(positive, negative), low=float(low), high=float(high), n=len(values))


def expected_calibration_error(
    labels: Sequence[float] | Floats, scores: Sequence[float] | Floats, *, bins: int = 10
) -> float:
    """Mean distance of score and frequency over equal bins, weighted by their texts (Guo et al. 2017)."""
    shares, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    places = np.minimum((values * bins).astype(int), bins - 1)
    return float(
        sum(
            abs(shares[places == place].mean() - values[places == place].mean()) * np.mean(places == place)
            for place in np.unique(places)
        )
    )


def recall_at_false_positive_rate(labels: Flags, scores: Floats, *, limit: float) -> float:
    """The greatest recall of any threshold whose false positive rate is at most ``limit``, 0..1."""
    from sklearn.metrics import roc_curve

    false_positive_rate, recall, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(recall[false_positive_rate <= limit].max())


def ranking(
    labels: Sequence[bool] | Flags,
    scores: Sequence[float] | Floats,
    *,
    flagged: Sequence[bool] | Flags | None = None,
) -> Ranking:
    """Ranking figures of ``scores`` for ``labels``; with ``flagged`` (the decisions) also those of the
    decision.

    Raises UsageError if a side is empty or the lengths differ.
    """
    from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

    truth, values = np.asarray(labels, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    if truth.shape != values.shape or truth.all() or not truth.any():
        raise UsageError(
            f"a ranking needs both sides: {int(truth.sum())} positives of {truth.size}, {values.size} scores"
        )
    decided = None if flagged is None else np.asarray(flagged, dtype=np.bool_)
    return Ranking(
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        auc=float(roc_auc_score(truth, values)),
        average_precision=float(average_precision_score(truth, values)),
        recall_at_1=recall_at_false_positive_rate(truth, values, limit=0.01),
        recall_at_5=recall_at_false_positive_rate(truth, values, limit=0.05),
        f1=None if decided is None else float(f1_score(truth, decided, zero_division=0.0)),
        recall=None if decided is None else float(decided[truth].mean()),
        false_positives=None if decided is None else float(decided[~truth].mean()),
    )


def rank_correlation(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float:
    """Spearman's rank correlation of two measurements of the same pairs, -1..1."""
    from scipy.stats import spearmanr

    return float(spearmanr(first, second).statistic)
