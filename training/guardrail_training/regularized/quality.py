"""Whether an auxiliary model knows what it is about to teach, on samples that it has not been fitted to."""

from __future__ import annotations

import math

from torch import Tensor

from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.nado.guidance import Guidance
from guardrail_training.nado.posterior import prefix_weights, token_kl
from guardrail_training.regularized.fitting import beliefs
from guardrail_training.regularized.samples import Samples

__all__ = ["SHARES", "distance", "quality", "ranking_quality"]

SHARES = (0.25, 0.5, 0.75, 1.0)
"""The parts of a response after which R is asked whether it will be a success."""


def quality(auxiliary: Auxiliary, samples: Samples, *, success_from: float) -> dict[str, float]:
    """How well R predicts the labels, by metric name.

    auxiliary/auc_25 ... auc_100    chance that of a success and a failure (labels from ``success_from`` on,
                                    and below) the success has the higher R after that share of its tokens;
                                    left out where one side is missing
    auxiliary/brier                 mean square of R less the label, at the end
    auxiliary/rate                  mean R of the prompts, beside ``auxiliary/label``, the mean label
    auxiliary/gap                   mean |E - R| of the two views of one prefix
    """
    after, before = beliefs(auxiliary, samples)
    lengths = samples.responses.lengths
    mask = samples.responses.mask[:, : after.shape[1]]  # of some rows: as wide as the longest of them
    positive = samples.labels >= success_from
    figures = {}
    for share in SHARES:
        place = (lengths * share).ceil().long() - 1
        auc = ranking_quality(after.gather(1, place[:, None])[:, 0], positive)
        if auc is not None:
            figures[f"auxiliary/auc_{share:.0%}".removesuffix("%")] = auc
    last = after.gather(1, lengths[:, None] - 1)[:, 0]
    apart = (before[:, 1:] - after[:, :-1]).abs() * mask[:, 1:]
    return figures | {
        "auxiliary/brier": float((last - samples.labels).square().mean()),
        "auxiliary/rate": float(before[:, 0].mean()),
        "auxiliary/label": float(samples.labels.mean()),
        "auxiliary/gap": float(apart.sum() / mask[:, 1:].sum().clamp(min=1)),
    }


def distance(guidance: Guidance, samples: Samples, *, most_prefix_weight: float) -> dict[str, float]:
    """How far the posterior is from the language model that drew the samples, by metric name.

    auxiliary/guided_kl     KL(q || p) of a response, in nats
    auxiliary/wanted_kl     what that would be were R exact and its power 1: -log of the rate of successes
    """
    reading = samples.reading
    guided = guidance.over(reading.states, reading.ids, reading.log_p)
    apart = token_kl(guided.log_q.flatten(0, 1), reading.log_p.flatten(0, 1))
    counting = prefix_weights(guided.log_success, most=most_prefix_weight) * samples.responses.mask
    kl = (apart.view(counting.shape) * counting).sum() / len(samples)
    return {"auxiliary/guided_kl": float(kl), "auxiliary/wanted_kl": -math.log(samples.rate)}


def ranking_quality(scores: Tensor, positive: Tensor) -> float | None:
    """The area under the ROC curve (ties count half); None where a side is missing."""
    high, low = scores[positive], scores[~positive]
    if not len(high) or not len(low):
        return None
    wins = (high[:, None] > low).double() + 0.5 * (high[:, None] == low)
    return float(wins.mean())
