"""The policy: the starting adapter's own weights, which go on being trained."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel

from guardrail.errors import ModelFileError
from guardrail.rewriters.adapter import Adapter
from guardrail_training.modeling import add_lora

__all__ = ["resume_adapter"]


def resume_adapter(model: Any, start: Adapter) -> PeftModel:
    """The model with a trainable adapter that holds the weights of ``start``, at its rank and scale.

    A layer that the adapter lacks where it has others of that name gets one that changes nothing yet. Raises
    ModelFileError where a layer does not fit.
    """
    known = {name for name, _ in model.named_modules()}
    for name in start.layers:
        if name not in known:
            raise _misfit(name)
    rank = len(next(iter(start.layers.values())).down)
    targets = sorted({name.rpartition(".")[2] for name in start.layers})
    adapted = add_lora(model, rank=rank, alpha=_plain(start.scale * rank), dropout=0.0, targets=targets)
    parameters = dict(adapted.named_parameters())
    with torch.no_grad():
        for name, factors in start.layers.items():
            for side, matrix in (("A", factors.down), ("B", factors.up)):
                parameter = parameters.get(f"base_model.model.{name}.lora_{side}.default.weight")
                if parameter is None or parameter.shape != matrix.shape:
                    raise _misfit(name)
                parameter.copy_(matrix)
    return adapted


def _plain(alpha: float) -> float:
    # 32 stays 32 in adapter_config.json.
    return int(alpha) if alpha == int(alpha) else alpha


def _misfit(name: str) -> ModelFileError:
    return ModelFileError(
        f"the adapter changes {name!r}, which the base does not have in that shape; is it for another base?"
    )
