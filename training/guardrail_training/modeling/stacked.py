"""The adapter that a run starts from: merged into the base, and put back into what the run saves.

Merged, it costs nothing in the reference's passes, and "adapter off" is the model it made. What is saved is
one adapter for the untouched base: two low-rank changes of a layer are one, of the sum of their ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor, nn

from guardrail.errors import ModelFileError
from guardrail.rewriters.adapter import Adapter, Factors
from guardrail_training.modeling import write_adapter

__all__ = ["merge", "save_stacked"]

PREFIX = "base_model.model."


def merge(model: Any, start: Adapter) -> None:
    """Adds the adapter to the model's weights; ModelFileError, before any change, where it does not fit."""
    layers = {name: _linear(model, name, factors) for name, factors in start.layers.items()}
    with torch.no_grad():
        for name, factors in start.layers.items():
            weight = layers[name].weight
            weight += torch.from_numpy(start.scale * factors.up @ factors.down).to(
                weight.device, weight.dtype
            )


def _linear(model: Any, name: str, factors: Factors) -> nn.Linear:
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        raise ModelFileError(
            f"the adapter changes {name!r}, which the base does not have; is it for another base?"
        ) from None
    shape = (factors.up.shape[0], factors.down.shape[1])
    if not isinstance(layer, nn.Linear) or shape != tuple(layer.weight.shape):
        raise ModelFileError(
            f"the adapter's {name!r} is a linear layer of {shape}, the base's is not; is it for another base?"
        )
    return layer


def save_stacked(model: PeftModel, folder: str | Path, *, start: Adapter | None) -> list[Path]:
    """Writes the model's adapter, on top of ``start`` if there was one, as one adapter; returns its paths."""
    config: Any = model.peft_config["default"]
    own = _factors(get_peft_model_state_dict(model))
    parts: list[tuple[float, Mapping[str, Factors]]] = [(config.lora_alpha / config.r, own)]
    if start is not None:
        parts.insert(0, (start.scale, start.layers))
    stacked = _stack(parts)
    tensors = {}
    for name, factors in stacked.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.from_numpy(factors.down)
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.from_numpy(factors.up)
    rank = len(next(iter(stacked.values())).down)
    targets = {name.rpartition(".")[2] for name in stacked}
    return write_adapter(
        folder,
        tensors,
        rank=rank,
        alpha=rank,  # the scales are in the matrices
        dropout=config.lora_dropout,
        targets=targets,
        task=config.task_type,
    )


def _stack(parts: list[tuple[float, Mapping[str, Factors]]]) -> dict[str, Factors]:
    """Layer by layer the sum of scaled low-rank changes; a part that lacks a layer is zero there."""
    ranks = [len(next(iter(layers.values())).down) for _, layers in parts]
    shapes = {
        name: (factors.up.shape[0], factors.down.shape[1])
        for _, layers in parts
        for name, factors in layers.items()
    }
    stacked = {}
    for name, (outputs, inputs) in shapes.items():
        down, up = [], []
        for rank, (scale, layers) in zip(ranks, parts, strict=True):
            factors = layers.get(name)
            down.append(factors.down if factors else np.zeros((rank, inputs), dtype=np.float32))
            up.append(scale * factors.up if factors else np.zeros((outputs, rank), dtype=np.float32))
        stacked[name] = Factors(down=np.concatenate(down), up=np.concatenate(up, axis=1))
    return stacked


def _factors(state: Mapping[str, Tensor]) -> dict[str, Factors]:
    names = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in state}
    return {
        name: Factors(
            down=state[f"{PREFIX}{name}.lora_A.weight"].float().cpu().numpy(),
            up=state[f"{PREFIX}{name}.lora_B.weight"].float().cpu().numpy(),
        )
        for name in sorted(names)
    }
