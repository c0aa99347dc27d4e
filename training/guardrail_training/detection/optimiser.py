"""How encoders are trained: AdamW, a rate that rises and falls, half precision where the machine has it."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

__all__ = ["Rates", "adamw", "learning_rate", "uses_bfloat16"]

FLOOR = 0.02  # the last steps' share of the peak learning rate


class Rates(Protocol):
    """The settings of an optimiser: peak rates of the encoder and of new layers, and decay of matrices."""

    @property
    def lr(self) -> float: ...
    @property
    def head_lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


def learning_rate(step: int, *, total: int, warmup: float) -> float:
    """The share of the peak rate at a step: a linear rise, then a linear fall."""
    warm = max(1, round(warmup * total))
    return min((step + 1) / warm, max(FLOOR, (total - step) / max(1, total - warm)))


def adamw(network: nn.Module, rates: Rates) -> torch.optim.Optimizer:
    """AdamW with a higher rate for new layers and no decay on vectors; each group has its ``peak`` rate."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((name.startswith("encoder."), parameter.dim() > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": rates.lr if encoder else rates.head_lr,
                "weight_decay": rates.weight_decay if matrix else 0.0,
            }
            for (encoder, matrix), parameters in groups.items()
        ],
        fused=True,
    )


def uses_bfloat16(dtype: str) -> bool:
    """Whether ``auto``, ``float32`` or ``bfloat16`` means half precision on this machine."""
    if dtype != "auto":
        return dtype == "bfloat16"
    supported: bool = torch.cpu._is_avx512_bf16_supported()
    return supported
