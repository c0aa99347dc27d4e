"""Fits the auxiliary model to labelled samples, and says whether it knows what it is about to teach."""

from __future__ import annotations

import torch
from torch import Tensor

from guardrail.errors import FailureError
from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.nado.balance import Balanced, balanced
from guardrail_training.nado.guidance import Guidance
from guardrail_training.nado.objective import PrefixLosses, prefix_label_losses, prefix_losses
from guardrail_training.nado.posterior import expected_success, prefix_weights, response_kl, token_kl
from guardrail_training.nado.success import from_logits
from guardrail_training.regularized.samples import LabelledSamples, PrefixLabels
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.run import clip_gradients

__all__ = ["SHARES", "beliefs", "distance", "fit", "quality", "ranking_quality"]

SHARES = (0.25, 0.5, 0.75, 1.0)
"""The parts of a response after which R is asked whether it will be a success."""


def fit(
    auxiliary: Auxiliary,
    optimizer: torch.optim.Optimizer,
    samples: LabelledSamples,
    *,
    settings: RegularizedSettings,
    iteration: int,
    steps: int,
    prefix_labels: PrefixLabels | None = None,
) -> dict[str, float]:
    """Takes ``steps`` optimizer steps over drawn rows; returns the mean losses by metric name.

    Rows are drawn by seed and iteration, with replacement, as ``balance`` says; alongside them as many of
    the known texts in ``prefix_labels``, of which only prefixes are learned.
    """
    drawing = _drawing(samples, settings)
    random = torch.Generator().manual_seed(settings.seed * 1_000_003 + iteration)
    parameters = list(auxiliary.parameters())
    weights = torch.tensor([1.0, settings.consistency, settings.prefix_weight])
    sums = torch.zeros(3)
    for _ in range(steps):
        # Half successes, half failures if the draw is balanced; ``drawing.offset`` corrects R for that.
        rows = torch.multinomial(
            drawing.probabilities, settings.auxiliary_batch, replacement=True, generator=random
        )
        taken, log_expected = _views(auxiliary, samples, rows)
        # NADO's objective (Meng et al. 2022, arXiv 2205.14219): every prefix predicts the label of the whole
        # response, and R of a prefix agrees with its mean over the next tokens.
        losses = _losses(taken, log_expected, samples, rows, drawing, settings)
        # Denser evidence: the oracle's labels of single prefixes, of drawn responses and of known texts.
        of_prefixes = prefix_label_losses(taken, samples.prefix_labels[rows, : taken.shape[1]])
        if prefix_labels is not None:
            known = torch.randint(len(prefix_labels), (settings.auxiliary_batch,), generator=random)
            logits = auxiliary(prefix_labels.states[known], prefix_labels.ids[known, :, None])[..., 0]
            of_prefixes = torch.cat(
                [of_prefixes.flatten(), prefix_label_losses(logits, prefix_labels.labels[known]).flatten()]
            )
        parts = torch.stack(
            [
                losses.cross_entropy.sum() / losses.prefixes.sum(),
                losses.consistency.sum() / losses.prefixes.sum(),
                # A loss is 0 only at prefixes that the oracle was not asked about.
                of_prefixes.sum() / of_prefixes.count_nonzero().clamp(min=1),
            ]
        )
        optimizer.zero_grad(set_to_none=True)
        (parts @ weights).backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        clip_gradients(
            parameters,
            settings.max_grad_norm,
            error=lambda: FailureError(
                "the auxiliary model's gradient is not finite; lower auxiliary_learning_rate"
            ),
        )
        optimizer.step()
        sums += parts.detach()
    optimizer.zero_grad(set_to_none=True)
    means = (sums / steps).tolist()
    names = ("auxiliary/cross_entropy", "auxiliary/consistency", "auxiliary/prefixes")
    return dict(zip(names, means, strict=True))


@torch.no_grad()
def beliefs(auxiliary: Auxiliary, samples: LabelledSamples) -> tuple[Tensor, Tensor]:
    """R of every prefix in two views, each ``(rows, time)``: after each token, and before it as a mean."""
    taken, log_expected = _views(auxiliary, samples, torch.arange(len(samples)))
    return from_logits(taken).log_success.exp(), log_expected.exp()


def _drawing(samples: LabelledSamples, settings: RegularizedSettings) -> Balanced:
    if settings.balanced:
        return balanced(samples.labels, samples.weights)
    return Balanced(samples.weights / samples.weights.sum(), samples.labels, offset=0.0)


def _losses(
    taken: Tensor,
    log_expected: Tensor,
    samples: LabelledSamples,
    rows: Tensor,
    drawing: Balanced,
    settings: RegularizedSettings,
) -> PrefixLosses:
    return prefix_losses(
        taken,
        log_expected,
        drawing.labels[rows],
        samples.responses.mask[rows, : taken.shape[1]],
        offset=drawing.offset,
        holds_expected=settings.holds_expected,
    )


def _views(auxiliary: Auxiliary, samples: LabelledSamples, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of R after each token, and log R before it, both ``(rows, time)``."""
    time = int(samples.responses.lengths[rows].max())
    reading = samples.reading.select(rows, time=time)
    following = samples.responses.ids[rows, :time, None]
    logits = auxiliary(reading.states, torch.cat([reading.ids, following], dim=2))
    log_success = from_logits(logits[..., :-1]).log_success
    before = expected_success(reading.log_p.flatten(0, 1), log_success.flatten(0, 1))
    return logits[..., -1], before.view(len(rows), time)


def quality(auxiliary: Auxiliary, samples: LabelledSamples, *, success_from: float) -> dict[str, float]:
    """How well R predicts the labels, by metric name.

    auxiliary/auc_25 ... auc_100    chance that of a success and a failure (labels from ``success_from`` on,
                                    and below) the success has the higher R after that share of its tokens;
                                    left out if one side is missing
    auxiliary/brier                 mean square of R less the label, at the end
    auxiliary/rate                  mean R of the prompts; compare ``auxiliary/label``, the mean label
    auxiliary/gap                   mean |E - R| of the two views of one prefix
    """
    after, before = beliefs(auxiliary, samples)
    lengths = samples.responses.lengths
    mask = samples.responses.mask[:, : after.shape[1]]  # of some rows: as wide as the longest of them
    positive = samples.labels >= success_from
    metrics = {}
    for share in SHARES:
        place = (lengths * share).ceil().long() - 1
        auc = ranking_quality(after.gather(1, place[:, None])[:, 0], positive)
        if auc is not None:
            metrics[f"auxiliary/auc_{share:.0%}".removesuffix("%")] = auc
    last = after.gather(1, lengths[:, None] - 1)[:, 0]
    apart = (before[:, 1:] - after[:, :-1]).abs() * mask[:, 1:]
    return metrics | {
        "auxiliary/brier": float((last - samples.labels).square().mean()),
        "auxiliary/rate": float(before[:, 0].mean()),
        "auxiliary/label": float(samples.labels.mean()),
        "auxiliary/gap": float(apart.sum() / mask[:, 1:].sum().clamp(min=1)),
    }


def distance(guidance: Guidance, samples: LabelledSamples, *, max_prefix_weight: float) -> dict[str, float]:
    """How far the posterior is from the language model that drew the samples, by metric name.

    auxiliary/guided_kl     KL(q || p) of a response, in nats
    auxiliary/wanted_kl     what that would be were R exact and its power 1, from the labels of the samples
    """
    reading = samples.reading
    guided = guidance.over(reading.states, reading.ids, reading.log_p)
    apart = token_kl(guided.log_q.flatten(0, 1), reading.log_p.flatten(0, 1))
    counting = prefix_weights(guided.log_success, max_weight=max_prefix_weight) * samples.responses.mask
    kl = (apart.view(counting.shape) * counting).sum() / len(samples)
    return {
        "auxiliary/guided_kl": float(kl),
        "auxiliary/wanted_kl": response_kl(samples.labels, samples.weights),
    }


def ranking_quality(scores: Tensor, positive: Tensor) -> float | None:
    """The area under the ROC curve (ties count half); None if a side is missing."""
    high, low = scores[positive], scores[~positive]
    if not len(high) or not len(low):
        return None
    wins = (high[:, None] > low).double() + 0.5 * (high[:, None] == low)
    return float(wins.mean())
