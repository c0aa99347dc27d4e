"""Probabilities of success in log space, where 0 and 1 are far away.

Success is what an oracle says of a whole response: 1 if it satisfies the constraint. ``R(prefix)`` is the
probability that a response which begins like this one will. It is held as a logit, so that both ``log R`` and
``log(1 - R)`` are exact (Meng et al. 2022, arXiv 2205.14219, calls the model of R NADO).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "Bernoulli",
    "bernoulli_kl",
    "from_log",
    "from_logits",
    "log1mexp",
    "logit_of",
    "prefix_cross_entropy",
]

MAX_LOGIT = 15.0
"""Logits beyond it are cut: a probability stays 3e-7 away from 0 and 1."""
MIN_GAP = 1e-6
"""How far a log-probability stays below 0, so that the logarithm of its complement is finite."""


@dataclass(frozen=True, slots=True, eq=False)
class Bernoulli:
    """A probability by its logarithm and that of its complement, of any one shape."""

    log_success: Tensor
    log_failure: Tensor

    @property
    def logit(self) -> Tensor:
        """log R - log(1 - R)."""
        return self.log_success - self.log_failure


def from_logits(logits: Tensor) -> Bernoulli:
    """The probabilities of logits, in float32 at least, cut at ``MAX_LOGIT``."""
    clamped = logits.to(torch.promote_types(logits.dtype, torch.float32)).clamp(-MAX_LOGIT, MAX_LOGIT)
    return Bernoulli(functional.logsigmoid(clamped), functional.logsigmoid(-clamped))


def from_log(log_success: Tensor) -> Bernoulli:
    """The probabilities of their logarithms, at most ``-MIN_GAP``."""
    clamped = log_success.clamp(max=-MIN_GAP)
    return Bernoulli(clamped, log1mexp(clamped))


def log1mexp(values: Tensor) -> Tensor:
    """``log(1 - exp(x))`` of ``x < 0`` without cancellation (Maechler 2012, the R package Rmpfr)."""
    return torch.where(values > -math.log(2), (-values.expm1()).log(), torch.log1p(-values.exp()))


def logit_of(probability: float) -> float:
    """The logit of a probability strictly between 0 and 1."""
    return math.log(probability) - math.log1p(-probability)


def prefix_cross_entropy(predicted: Bernoulli, labels: Tensor, *, offset: float = 0.0) -> Tensor:
    """Cross entropy of predictions with labels in 0..1, of their common shape.

    Every prefix of a response gets the label of the whole, so that the optimum is the conditional
    expectation, which is R. ``offset`` is what ``balance.balanced`` returns if rows were drawn by label:
    the prediction is then lowered by it here, and is the true R itself.
    """
    return functional.binary_cross_entropy_with_logits(predicted.logit - offset, labels, reduction="none")


def bernoulli_kl(first: Bernoulli, second: Bernoulli) -> Tensor:
    """KL(first || second) in nats."""
    success = first.log_success.exp() * (first.log_success - second.log_success)
    failure = first.log_failure.exp() * (first.log_failure - second.log_failure)
    return success + failure
