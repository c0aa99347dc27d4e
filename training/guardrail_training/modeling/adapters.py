"""LoRA adapters: added to a base, taken up again, written."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from guardrail.errors import ConfigError, ModelFileError
from guardrail.rewriters.adapter import Adapter
from guardrail_training.settings import ALL_LINEAR

CPU = torch.device("cpu")

__all__ = [
    "add_lora",
    "resume_adapter",
    "save_adapter",
    "trainable_parameters",
    "write_adapter",
]


def add_lora(model: Any, *, rank: int, alpha: float, dropout: float, targets: Sequence[str]) -> PeftModel:
    """The model with a fresh adapter: a no-op until trained, in float32 whatever the base is held in.

    ``targets`` are names of layers, or ``all-linear``. Raises ConfigError if the model has no layer of a
    target's name.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if tuple(targets) == ALL_LINEAR:
        targets = _linear_layers(model)
    if missing := sorted(set(targets) - names):
        linear = ", ".join(_linear_layers(model))
        raise ConfigError(
            f"targets {', '.join(missing)}: {type(model).__name__} has no layers of that name; its linear "
            f"layers are {linear}, and all-linear takes all of them"
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        bias="none",
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft reads an attribute that transformers has renamed; its value plays no part here.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        # It looks for bitsandbytes, which uses what torch has renamed.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return get_peft_model(model, config, autocast_adapter_dtype=True)


def _linear_layers(model: Any) -> list[str]:
    """The names of a model's linear layers but for its output layer."""
    output = model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not output
    }
    if not found:
        raise ConfigError(f"{type(model).__name__} has no linear layers, which adapters are made for")
    return sorted(found)


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimizer should move, in the model's order."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def resume_adapter(model: Any, start: Adapter) -> PeftModel:
    """The model with a trainable adapter that holds the weights of ``start``, at its rank and scale.

    A layer that the adapter lacks where it has others of that name gets one that changes nothing yet. Raises
    ModelFileError if a layer does not fit.
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
                parameter.copy_(torch.from_numpy(matrix))
    return adapted


def _plain(alpha: float) -> float:
    # 32 stays 32 in adapter_config.json.
    return int(alpha) if alpha == int(alpha) else alpha


def _misfit(name: str) -> ModelFileError:
    return ModelFileError(
        f"the adapter changes {name!r}, which the base does not have in that shape; is it for another base?"
    )


def save_adapter(model: PeftModel, folder: str | Path) -> list[Path]:
    """Writes the model's adapter as ``write_adapter`` does; returns the paths of its files."""
    config: Any = model.peft_config["default"]
    return write_adapter(
        folder,
        get_peft_model_state_dict(model),
        rank=config.r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        targets=config.target_modules,
        task=config.task_type,
    )


def write_adapter(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Iterable[str],
    task: str,
) -> list[Path]:
    """Writes ``adapter_model.safetensors`` in float16 and ``adapter_config.json``; returns their paths.

    ``tensors`` has peft's names. Not by ``save_pretrained``, which would record the path of the base on this
    machine.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "adapter_model.safetensors"
    state = {name: value.to(CPU, torch.float16).contiguous() for name, value in tensors.items()}
    save_file(state, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors writes 0600, which others cannot read
    content = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": sorted(targets),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [weights, path]
