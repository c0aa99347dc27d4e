"""A text with its labels, as every source gives it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from guardrail.errors import UsageError
from guardrail.outcome import LABELS

__all__ = ["CLEAN", "HELD_OUT", "TRAINED", "Labelled", "Labels", "fold", "soft"]

TRAINED = (*LABELS, "hate", "sexism")
"""What training learns: the labels of a verdict, and two definitions of sources that stay in training."""

Labels = tuple[float | None, ...]

CLEAN: Labels = (0.0,) * len(TRAINED)
HELD_OUT = 0.06  # share of the train files kept for calibration and thresholds


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text with its soft labels, in the order of ``TRAINED``; ``None`` means that the source does not say.

    ``spans`` are the toxic character ranges, empty for a clean text and ``None`` where nobody marked any.
    ``key`` names the row it came from: everything made from one row stays on one side of the calibration
    split. Texts of one ``pair`` differ in little but the label, and are read in one batch.
    """

    text: str
    labels: Labels
    source: str
    key: str
    spans: tuple[tuple[int, int], ...] | None = None
    weight: float = 1.0
    pair: str = ""


def soft(**shares: float | None) -> Labels:
    """Labels in order from shares by name; the unnamed ones are masked.

    What is toxic is also uncivil, so ``incivility`` follows from ``toxicity`` unless it is named.
    """
    unknown = sorted(set(shares) - set(TRAINED))
    if unknown:
        raise UsageError(f"unknown labels {unknown}; the labels are {list(TRAINED)}")
    toxicity = shares.get("toxicity")
    if toxicity is not None and toxicity >= 0.5:
        shares.setdefault("incivility", toxicity)
    return tuple(shares.get(label) for label in TRAINED)


def fold(key: str) -> float:
    """A number in 0..1 that depends on the key alone; below ``HELD_OUT`` the row calibrates, never trains."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:6], "big") / 2**48
