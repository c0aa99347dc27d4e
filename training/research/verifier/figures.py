"""How well a verifier tells what readers accept: calibration, threshold, and figures at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardrail_training.metrics.statistics import Mean, Rate, auc_interval, wilson_rate
from research.detection.labelled import fold
from research.verifier.examples import Example

__all__ = ["Figures", "choose_threshold", "crossed_precision", "measure"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

GRID = tuple(place / 100 for place in range(1, 100))
MIN_TAKEN = 20  # so many must be taken for a precision to count


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures on candidates; ``refused`` has the share below the threshold per origin."""

    acceptable: int
    candidates: int
    auc: Mean
    precision: Rate | None  # None where nothing is taken
    recall: Rate
    refused: dict[str, Rate]


def choose_threshold(acceptable: Flags, probabilities: Floats, *, precision: float) -> float | None:
    """The lowest probability, in hundredths, from which on ``precision`` of what is taken is acceptable.

    None where no threshold that takes ``MIN_TAKEN`` candidates has it.
    """
    for threshold in GRID:
        taken = probabilities >= threshold
        if taken.sum() >= MIN_TAKEN and acceptable[taken].mean() >= precision:
            return threshold
    return None


def crossed_precision(examples: Sequence[Example], probabilities: Floats, *, precision: float) -> Rate | None:
    """The precision of thresholds on sources that they were not chosen on, each half by the other's.

    None where a half has no threshold, or none is taken.
    """
    acceptable = np.array([example.acceptable for example in examples], dtype=bool)
    first = np.array([fold(f"half:{example.key}") < 0.5 for example in examples], dtype=bool)
    taken = np.zeros(len(examples), dtype=bool)
    for half in (first, ~first):
        threshold = choose_threshold(acceptable[half], probabilities[half], precision=precision)
        if threshold is None:
            return None
        taken |= ~half & (probabilities >= threshold)
    return wilson_rate(int(acceptable[taken].sum()), int(taken.sum())) if taken.any() else None


def measure(examples: Sequence[Example], probabilities: Floats, *, threshold: float, seed: int) -> Figures:
    """The figures of candidates of both classes."""
    acceptable = np.array([example.acceptable for example in examples], dtype=bool)
    taken = probabilities >= threshold
    origins = np.array([example.origin for example in examples])
    good = int((acceptable & taken).sum())
    return Figures(
        acceptable=int(acceptable.sum()),
        candidates=len(examples),
        auc=auc_interval(acceptable, probabilities, seed=seed),
        precision=wilson_rate(good, int(taken.sum())) if taken.any() else None,
        recall=wilson_rate(good, int(acceptable.sum())),
        refused={
            str(origin): wilson_rate(int((~taken[origins == origin]).sum()), int((origins == origin).sum()))
            for origin in np.unique(origins)
        },
    )
