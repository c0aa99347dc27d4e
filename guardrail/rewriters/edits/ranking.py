"""Orders edits and free rewrites by how likely the model finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["ranked"]

MIN_WORST = -5.0
"""Log-probability of its least likely token below which an edit is not proposed: something is missing."""
MIN_MEAN = -1.6
"""Mean log-probability per token below which an edit is not proposed."""

Floats = npt.NDArray[np.float32]


def ranked(scores: Mapping[str, Floats], *, source: str, free: Sequence[str], n: int) -> list[str]:
    """Up to ``n`` candidates: the greedy rewrite and likely edits by their likelihood, then other samples.

    ``scores`` has for each text the log-probability of each of its tokens and of its end; ``free`` are the
    model's own rewrites, the greedy one first.
    """
    greedy = list(free[:1])
    likely = [text for text in scores if text not in free and _reads_well(scores[text])]
    ordered = sorted([*greedy, *likely], key=lambda text: (-float(scores[text].sum()), text))
    samples = [text for text in free[1:] if text not in ordered]
    room = max(1, n - min(len(samples), n // 3))
    return list(dict.fromkeys([*ordered[:room], *samples, *ordered[room:]]))[:n]


def _reads_well(score: Floats) -> bool:
    return bool(score.min() >= MIN_WORST and score.mean() >= MIN_MEAN)
