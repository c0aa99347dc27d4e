"""Losses as pure functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["IGNORED", "token_cross_entropy"]

IGNORED = -100
"""The label of a position that carries no loss (the convention of torch's cross entropy)."""


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats per target token, computed in float32 whatever the logits are.

    ``logits`` is ``(tokens, vocabulary)`` and ``targets`` is ``(tokens,)``, both for labelled positions only.
    """
    if targets.numel() == 0:
        raise ValueError("no labelled position: a mean over zero tokens is undefined")
    if bool((targets < 0).any()):
        raise ValueError("targets hold an ignored label: select the labelled positions first")
    return functional.cross_entropy(logits.to(torch.float32), targets)
