"""From scores to advantages, and what PPO minimises: pure functions of ``(rows, time)`` float32 tensors.

``mask`` is true at the tokens of a response, its end-of-text token included, which begin at column 0 and have
no gap. Values outside it are ignored and come out as 0.

The formulas are those of https://arxiv.org/abs/1707.06347 and, where it leaves them open, of the settings
that "The N implementation details of RLHF with PPO" (https://arxiv.org/abs/2403.17031) counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "clipped_policy_loss",
    "clipped_value_loss",
    "generalised_advantages",
    "group_advantages",
    "is_clipped",
    "is_value_clipped",
    "masked_mean",
    "masked_variance",
    "token_kl",
    "token_rewards",
    "whiten",
]

EPSILON = 1e-8


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the masked tokens of all rows, a scalar."""
    return (values * mask).sum() / mask.sum()


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """The variance over the masked tokens, with Bessel's correction; 0 for a single token."""
    squares = (values - masked_mean(values, mask)).square()
    return (squares * mask).sum() / (mask.sum() - 1).clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Values of variance 1 and, with ``shift_mean``, of mean 0 over the masked tokens of the whole batch."""
    mean = masked_mean(values, mask)
    whitened = (values - mean) * torch.rsqrt(masked_variance(values, mask) + EPSILON)
    return (whitened if shift_mean else whitened + mean) * mask


def token_kl(logprobs: Tensor, reference: Tensor, *, estimator: str) -> Tensor:
    """What each sampled token adds to KL(policy || reference), in nats, estimated from its own probability.

    ``k1`` is the log ratio, unbiased and of either sign; ``k3`` is ``r - 1 - log r`` for the inverse ratio r,
    unbiased and never negative (http://joschu.net/blog/kl-approx.html).
    """
    log_ratio = logprobs - reference
    return log_ratio if estimator == "k1" else torch.expm1(-log_ratio) + log_ratio


def token_rewards(kl: Tensor, scores: Tensor, mask: Tensor, *, coefficient: float) -> Tensor:
    """The KL penalty at every token, and the score ``(rows,)`` of the answer at its last one."""
    rewards = -coefficient * kl * mask
    last = mask.sum(dim=1) - 1
    rewards[torch.arange(len(rewards)), last] += scores
    return rewards


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """Generalised advantage estimation (https://arxiv.org/abs/1506.02438, equation 16), not whitened.

    A response ends its episode: the value after its last token is 0. The value function's targets are these
    advantages plus ``values``.
    """
    values, rewards = values * mask, rewards * mask
    advantages = torch.zeros_like(rewards)
    later = torch.zeros(len(rewards))
    for step in reversed(range(rewards.shape[1])):
        after = values[:, step + 1] if step + 1 < rewards.shape[1] else torch.zeros(len(rewards))
        delta = rewards[:, step] + gamma * after - values[:, step]
        later = delta + gamma * gae_lambda * later
        advantages[:, step] = later
    return advantages * mask


def group_advantages(rewards: Tensor, *, group: int, standardise: bool) -> Tensor:
    """Advantages ``(rows,)`` of whole responses over others to the same prompt, which lie side by side.

    The baseline is the mean of the other ``group - 1`` rewards (RLOO, https://arxiv.org/abs/2402.14740,
    equation 8); with ``standardise`` it is the mean of all, and the difference is divided by their standard
    deviation (GRPO, https://arxiv.org/abs/2402.03300, section 4.1.2).
    """
    grouped = rewards.view(-1, group)
    centred = grouped - grouped.mean(dim=1, keepdim=True)
    if standardise:
        return (centred / (grouped.std(dim=1, keepdim=True) + 1e-4)).flatten()
    return (centred * group / (group - 1)).flatten()


def clipped_policy_loss(log_ratio: Tensor, advantages: Tensor, *, clip: float) -> Tensor:
    """``max(-A r, -A clip(r, 1 - clip, 1 + clip))`` for the ratio ``r`` of new to old probability."""
    ratio = log_ratio.exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """Half the squared error to the returns, the greater one of the value and of it held within ``clip``."""
    held = torch.clamp(values, old - clip, old + clip)
    return 0.5 * torch.maximum((values - returns).square(), (held - returns).square())


def is_clipped(log_ratio: Tensor, advantages: Tensor, *, clip: float) -> Tensor:
    """True if the clipped term is the loss, so that the token has no gradient."""
    ratio = log_ratio.exp()
    return -advantages * ratio.clamp(1 - clip, 1 + clip) > -advantages * ratio


def is_value_clipped(values: Tensor, old: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """True if the value held within ``clip`` has the greater error (trl's ``val/clipfrac``)."""
    held = torch.clamp(values, old - clip, old + clip)
    return (held - returns).square() > (values - returns).square()
