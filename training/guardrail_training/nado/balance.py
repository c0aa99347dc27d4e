"""Answers drawn unevenly, and what sets that right: importance weights, balanced labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail_training.nado.success import logit_of

__all__ = ["Balanced", "balanced", "importance_weights", "prefix_importance", "success_rate"]


def importance_weights(
    log_wanted: Tensor, log_drawn: Tensor, *, min_weight: float = 0.2, max_weight: float = 5.0
) -> Tensor:
    """Weights ``(rows,)`` with which answers drawn from one distribution stand for another; their mean is 1.

    Both arguments are log-probabilities ``(rows,)`` of whole answers. The ratios are normalised and then
    bounded, since a few answers must not carry the mean, and normalised again, since bounds lower it.
    """
    log_ratio = log_wanted - log_drawn
    bounded = (log_ratio.softmax(dim=0) * len(log_ratio)).clamp(min_weight, max_weight)
    return bounded / bounded.mean()


def prefix_importance(
    log_ratios: Tensor, mask: Tensor, *, min_weight: float = 0.2, max_weight: float = 5.0
) -> Tensor:
    """``importance_weights`` ``(rows, time)`` of the prefix before each token, among answers that reach it.

    ``log_ratios`` ``(rows, time)`` are those of single tokens. What follows a prefix says nothing about how
    likely the prefix is, and would only add variance. 0 outside ``mask``.
    """
    before = (log_ratios * mask).cumsum(dim=1) - log_ratios * mask
    weights = torch.zeros_like(log_ratios)
    for column in range(mask.shape[1]):
        rows = mask[:, column]
        if bool(rows.any()):
            log_ratio = before[rows, column]
            weights[rows, column] = importance_weights(
                log_ratio, torch.zeros_like(log_ratio), min_weight=min_weight, max_weight=max_weight
            )
    return weights


def success_rate(labels: Tensor, weights: Tensor) -> float:
    """The weighted mean of labels in 0..1; at least half an answer on either side, so that it has a logit."""
    rate = float((weights * labels).sum() / weights.sum())
    half_an_answer = 0.5 / (len(labels) + 1)
    return min(max(rate, half_an_answer), 1 - half_an_answer)


@dataclass(frozen=True, slots=True, eq=False)
class Balanced:
    """How to draw rows so that successes are a given share: with what probability, under which label.

    ``probabilities`` and ``labels`` are ``(rows,)``. The logit of R under this drawing is that of the true R
    less ``offset``, for every prefix.
    """

    probabilities: Tensor
    labels: Tensor
    offset: float


def balanced(labels: Tensor, weights: Tensor, *, share: float = 0.5) -> Balanced:
    """Balances labels in 0..1 of rows with importance weights, both ``(rows,)``.

    A label between 0 and 1 is that share of a success and the rest of a failure. Successes are drawn
    ``share / rate`` times as often as they occur, failures ``(1 - share) / (1 - rate)`` times; that depends
    on the label alone, so the odds of every prefix change by one and the same factor.
    """
    rate = success_rate(labels, weights)
    successes = labels * (share / rate)
    mass = successes + (1 - labels) * ((1 - share) / (1 - rate))
    drawn = weights * mass
    return Balanced(
        probabilities=drawn / drawn.sum(),
        labels=torch.where(mass > 0, successes / mass, labels),
        offset=logit_of(rate) - logit_of(share),
    )
