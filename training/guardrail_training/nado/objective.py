"""What an auxiliary model of R learns from: response labels, its own consistency, prefix labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail_training.nado.success import (
    bernoulli_kl,
    from_log,
    from_logits,
    prefix_cross_entropy,
)

__all__ = ["PrefixLosses", "prefix_label_losses", "prefix_losses"]


@dataclass(frozen=True, slots=True, eq=False)
class PrefixLosses:
    """Sums over each response's prefixes ``(rows,)`` in nats, and how many prefixes those are."""

    cross_entropy: Tensor
    consistency: Tensor
    prefixes: Tensor


def prefix_losses(
    taken: Tensor,
    log_expected: Tensor,
    labels: Tensor,
    mask: Tensor,
    *,
    offset: float = 0.0,
    holds_expected: bool = False,
) -> PrefixLosses:
    """Both losses of responses, all ``(rows, time)`` but for ``labels`` ``(rows,)`` in 0..1.

    ``taken`` holds the logits of R *after* each token, ``log_expected`` log R *before* it, as the mean over
    its continuations (``posterior.expected_success``). The cross entropy is over every prefix, the prompt
    alone included, which only the mean knows. The forward-consistency term KL(mean || R) is between the two
    views of one prefix; the last one has no continuations. Both sides get gradients, as in the authors' code
    for CommonGen (their code for translation has KL(R || mean): the minimum is the same);
    ``holds_expected`` takes the mean as a constant.
    """
    after, before = from_logits(taken), from_log(log_expected)
    label = labels[:, None].expand_as(taken)
    on_prompt = prefix_cross_entropy(from_log(log_expected[:, :1]), label[:, :1], offset=offset)[:, 0]
    on_prefixes = torch.where(mask, prefix_cross_entropy(after, label, offset=offset), 0.0)

    mean = from_log(before.log_success[:, 1:].detach() if holds_expected else before.log_success[:, 1:])
    apart = bernoulli_kl(mean, from_logits(taken[:, :-1]))
    return PrefixLosses(
        cross_entropy=on_prompt + on_prefixes.sum(dim=1),
        consistency=torch.where(mask[:, 1:], apart, 0.0).sum(dim=1),
        prefixes=1 + mask.sum(dim=1),
    )


def prefix_label_losses(taken: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of R after each token with what the oracle says of the text so far ``(rows, time)``.

    ``labels`` in 0..1 is nan if the oracle was not asked; the loss is 0 there. It is not the label that
    R is defined by, which is that of the whole response, but it is known for every prefix, and it tells which
    token it was that mattered.
    """
    known = ~labels.isnan()
    return torch.where(known, prefix_cross_entropy(from_logits(taken), labels.nan_to_num()), 0.0)
