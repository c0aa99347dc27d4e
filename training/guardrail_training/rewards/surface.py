"""Scores that need no model: length, copying, overlap with human answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardrail.errors import ConfigError
from guardrail_training.data import normalised
from guardrail_training.metrics.overlap import best_chrf
from guardrail_training.rewards.algebra import Answer, Floats, Score

__all__ = ["copied", "length_in_words", "length_ratio", "overlapping", "within"]


def copied(answers: Sequence[Answer]) -> Floats:
    """1 if the response has the query's letters and digits and no others, else 0."""
    return np.array([normalised(a.response) == normalised(a.query) for a in answers], dtype=np.float32)


def overlapping(answers: Sequence[Answer]) -> Floats:
    """The highest chrF (Popovic 2015) of the response with a reference, 0..1.

    Raises ConfigError for an answer without references.
    """
    if not all(answer.references for answer in answers):
        raise ConfigError("the reward's term overlap needs references, and this trainer's rows have none")
    chrfs = best_chrf([answer.response for answer in answers], [answer.references for answer in answers])
    return chrfs.astype(np.float32)


def length_in_words(*, least: float, most: float) -> Score:
    """1 if the response has between ``least`` and ``most`` words; see ``within``."""
    return lambda answers: within([len(a.response.split()) for a in answers], least=least, most=most)


def length_ratio(*, least: float, most: float) -> Score:
    """1 if the response has between ``least`` and ``most`` times the query's words; see ``within``."""
    return lambda answers: within(
        [len(a.response.split()) / max(1, len(a.query.split())) for a in answers], least=least, most=most
    )


def within(sizes: Sequence[float], *, least: float, most: float) -> Floats:
    """1 inside the bounds; below, it falls as ``size / least``, above, as ``most / size``."""
    array = np.asarray(sizes, dtype=np.float64)
    below = np.minimum(array, least) / least if least > 0 else np.ones_like(array)
    above = most / np.maximum(array, most)
    return np.asarray(np.minimum(below, above), dtype=np.float32)
