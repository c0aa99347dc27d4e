"""Fits the auxiliary model to labelled samples."""

from __future__ import annotations

import torch
from torch import Tensor

from guardrail.errors import FailureError
from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.nado.balance import Balanced, balanced
from guardrail_training.nado.objective import PrefixLosses, opinion_losses, prefix_losses
from guardrail_training.nado.posterior import expected_success
from guardrail_training.nado.success import from_logits
from guardrail_training.regularized.opinions import Opinions
from guardrail_training.regularized.samples import Samples
from guardrail_training.regularized.settings import RegularizedSettings

__all__ = ["beliefs", "fit"]


def fit(
    auxiliary: Auxiliary,
    optimizer: torch.optim.Optimizer,
    samples: Samples,
    *,
    settings: RegularizedSettings,
    iteration: int,
    steps: int,
    opinions: Opinions | None = None,
) -> dict[str, float]:
    """Takes ``steps`` optimizer steps over drawn rows; returns the mean losses by metric name.

    Rows are drawn by seed and iteration, with replacement, as ``balance`` says; beside them as many of the
    known texts in ``opinions``, of which only prefixes are learned.
    """
    drawing = _drawing(samples, settings)
    random = torch.Generator().manual_seed(settings.seed * 1_000_003 + iteration)
    parameters = list(auxiliary.parameters())
    weights = torch.tensor([1.0, settings.consistency, settings.prefix_weight])
    sums = torch.zeros(3)
    for _ in range(steps):
        rows = torch.multinomial(
            drawing.probabilities, settings.auxiliary_batch, replacement=True, generator=random
        )
        taken, log_expected = _views(auxiliary, samples, rows)
        found = _losses(taken, log_expected, samples, rows, drawing, settings)
        of_prefixes = opinion_losses(taken, samples.prefix_labels[rows, : taken.shape[1]])
        if opinions is not None:
            known = torch.randint(len(opinions), (settings.auxiliary_batch,), generator=random)
            logits = auxiliary(opinions.states[known], opinions.ids[known, :, None])[..., 0]
            of_prefixes = torch.cat(
                [of_prefixes.flatten(), opinion_losses(logits, opinions.labels[known]).flatten()]
            )
        parts = torch.stack(
            [
                found.cross_entropy.sum() / found.prefixes.sum(),
                found.consistency.sum() / found.prefixes.sum(),
                # It is 0 only where the oracle was not asked.
                of_prefixes.sum() / of_prefixes.count_nonzero().clamp(min=1),
            ]
        )
        optimizer.zero_grad(set_to_none=True)
        (parts @ weights).backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
        if not bool(torch.isfinite(norm)):
            raise FailureError("the auxiliary model's gradient is not finite; lower auxiliary_learning_rate")
        optimizer.step()
        sums += parts.detach()
    optimizer.zero_grad(set_to_none=True)
    means = (sums / steps).tolist()
    names = ("auxiliary/cross_entropy", "auxiliary/consistency", "auxiliary/prefixes")
    return dict(zip(names, means, strict=True))


@torch.no_grad()
def beliefs(auxiliary: Auxiliary, samples: Samples) -> tuple[Tensor, Tensor]:
    """R of every prefix in two views, each ``(rows, time)``: after each token, and before it as a mean."""
    taken, log_expected = _views(auxiliary, samples, torch.arange(len(samples)))
    return from_logits(taken).log_success.exp(), log_expected.exp()


def _drawing(samples: Samples, settings: RegularizedSettings) -> Balanced:
    if settings.balanced:
        return balanced(samples.labels, samples.weights)
    return Balanced(samples.weights / samples.weights.sum(), samples.labels, offset=0.0)


def _losses(
    taken: Tensor,
    log_expected: Tensor,
    samples: Samples,
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


def _views(auxiliary: Auxiliary, samples: Samples, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of R after each token, and log R before it, both ``(rows, time)``."""
    time = int(samples.responses.lengths[rows].max())
    reading = samples.reading.select(rows, time=time)
    following = samples.responses.ids[rows, :time, None]
    logits = auxiliary(reading.states, torch.cat([reading.ids, following], dim=2))
    log_success = from_logits(logits[..., :-1]).log_success
    before = expected_success(reading.log_p.flatten(0, 1), log_success.flatten(0, 1))
    return logits[..., -1], before.view(len(rows), time)
