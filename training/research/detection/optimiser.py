"""How encoders are trained: AdamW, a rate that rises and falls, half precision if the machine has it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from guardrail_training.checkpoint import load_checkpoint, save_checkpoint, stop_on_signals
from guardrail_training.runlog import MetricLog, progress_bar, write_run

__all__ = ["LossOf", "Rates", "adamw", "learning_rate", "take_steps", "uses_bfloat16"]

FLOOR = 0.02  # the last steps' share of the peak learning rate


class Rates(Protocol):
    """The settings of an optimiser: peak rates of the encoder and of new layers, and decay of matrices."""

    @property
    def lr(self) -> float: ...
    @property
    def head_lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...


class EncoderSettings(Rates, Protocol):
    """The settings of a run's steps, too: the folder of its state, and how often that is written."""

    @property
    def out(self) -> str: ...
    @property
    def checkpoint_every(self) -> int: ...


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


LossOf = Callable[[int], tuple[Mapping[str, Tensor], int]]
"""The losses of a step, counted from 1, the one to descend under ``loss``; and how many texts it read."""


def take_steps(
    network: nn.Module,
    loss_of: LossOf,
    *,
    name: str,
    unit: str,
    settings: EncoderSettings,
    rates: Sequence[float],
    fingerprint: str,
    facts: Mapping[str, Any],
    after: Callable[[int], object] = lambda number: None,
) -> None:
    """Trains the network in place; resumes from a checkpoint in ``settings.out`` with this fingerprint.

    ``rates`` are shares of the peak learning rate, one for each step. ``after`` is called with the number of
    each step that was taken. A signal saves a checkpoint and raises SystemExit; FloatingPointError if a loss
    is not finite.
    """
    out, total = Path(settings.out), len(rates)
    optimizer = adamw(network, settings)
    first = load_checkpoint(out, model=network, optimizer=optimizer, fingerprint=fingerprint)
    write_run(out, settings=settings, facts={"steps": total, "fingerprint": fingerprint, **facts})
    metrics = MetricLog(out, resumed_from=first)
    network.train()
    started, seen = time.monotonic(), 0
    with stop_on_signals() as request, progress_bar() as bar:
        task = bar.add_task(name, total=total, completed=first, loss=0.0)
        for number, rate in enumerate(rates[first:], start=first + 1):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate
            losses, texts = loss_of(number)
            losses["loss"].backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seen += texts
            values = {key: round(float(loss.detach()), 5) for key, loss in losses.items()}
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(
                    f"the loss is {values['loss']} at step {number}; lower lr or use dtype=float32"
                )
            speed = {f"{unit}_per_second": round(seen / (time.monotonic() - started), 1)}
            metrics.add({**values, "lr": settings.lr * rate, **speed}, step=number)
            bar.update(task, advance=1, loss=values["loss"])
            last = number == total or request.signal is not None
            if last or number % settings.checkpoint_every == 0:
                save_checkpoint(out, step=number, model=network, optimizer=optimizer, fingerprint=fingerprint)
            after(number)
            if request.signal:
                raise SystemExit(
                    f"{request.signal}: saved after step {number} of {total}; the same command continues"
                )
    metrics.close()
