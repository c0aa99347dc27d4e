"""What PPO minimises, per token, as pure functions; every tensor is ``(rows, time)`` float32.

The formulas are those of https://arxiv.org/abs/1707.06347 and, where it leaves them open, of the settings
that "The N implementation details of RLHF with PPO" (https://arxiv.org/abs/2403.17031) counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["clipped_policy_loss", "clipped_value_loss", "is_clipped"]


def clipped_policy_loss(log_ratio: Tensor, advantages: Tensor, *, clip: float) -> Tensor:
    """``max(-A r, -A clip(r, 1 - clip, 1 + clip))`` for the ratio ``r`` of new to old probability."""
    ratio = log_ratio.exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, *, clip: float) -> Tensor:
    """Half the squared error to the returns, the greater one of the value and of it held within ``clip``."""
    held = torch.clamp(values, old - clip, old + clip)
    return 0.5 * torch.maximum((values - returns).square(), (held - returns).square())


def is_clipped(log_ratio: Tensor, advantages: Tensor, *, clip: float) -> Tensor:
    """True where the clipped term is the loss, so that the token has no gradient."""
    ratio = log_ratio.exp()
    return -advantages * ratio.clamp(1 - clip, 1 + clip) > -advantages * ratio
