"""Base models and their tokenizers: opened, counted, written; where and how they compute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.activations import NewGELUActivation

from guardrail.errors import ConfigError, ModelMissingError
from guardrail.manifest import FILENAME
from guardrail.models.convert import quiet_transformers
from guardrail_training.modeling.quantised import keep_trainable, quantisation_config, stored_parameters

__all__ = [
    "ParameterCount",
    "autocast",
    "count_parameters",
    "empty_base",
    "fuse_activations",
    "load_base",
    "load_ending_tokenizer",
    "load_tokenizer",
    "resolve_device",
    "resolve_dtype",
    "save_model",
]

CPU = torch.device("cpu")
WHOLE = "1TB"  # one weight file, which is what a manifest's identity is the sha256 of


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """How many numbers a model holds and how many of them are trained."""

    trainable: int
    total: int

    def __str__(self) -> str:
        share = 100 * self.trainable / self.total
        return f"trainable parameters: {self.trainable:,} of {self.total:,} ({share:.3g} %)"


def count_parameters(model: nn.Module) -> ParameterCount:
    """The model's numbers, those of a quantised base as many as they were before."""
    sizes = [(stored_parameters(p), p.requires_grad) for p in model.parameters()]
    return ParameterCount(
        trainable=sum(size for size, is_trained in sizes if is_trained), total=sum(size for size, _ in sizes)
    )


def resolve_device(name: str) -> torch.device:
    """Where to compute: ``auto`` is this process's GPU if there is one, else the CPU.

    Raises ConfigError for a name that torch does not know, and for a device that it does not find here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device must be auto, cpu, cuda or another of torch's, got {name!r}") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda' needs a GPU, which torch does not find here; 'cpu' trains without")
    if name == "cuda":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def resolve_dtype(name: str, device: torch.device = CPU) -> torch.dtype:
    """The dtype to compute in; ``auto`` is bfloat16 if the device multiplies in it, else float32."""
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if name not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype must be auto, float32 or bfloat16, got {name!r}")
    return torch.float32 if name == "float32" else torch.bfloat16


def _has_bfloat16(device: torch.device) -> bool:
    # Without the instructions bfloat16 is emulated, and slower than float32.
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


@contextmanager
def autocast(dtype: torch.dtype, *, device: str = "cpu") -> Iterator[None]:
    """Matrix products in ``dtype`` while inside; nothing changes for float32."""
    if dtype is torch.float32:
        yield
        return
    with torch.autocast(device, dtype=dtype):
        yield


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a base folder; no code from the folder runs and nothing is downloaded."""
    _require_folder(folder)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def load_ending_tokenizer(folder: str | Path, *, pad_token: str = "") -> Any:
    """The tokenizer of a base folder, padding with ``pad_token`` where it does not say with what.

    Raises ConfigError if it has no padding or no end-of-text token.
    """
    tokenizer = load_tokenizer(folder)
    if pad_token and tokenizer.pad_token is None:
        if pad_token not in tokenizer.get_vocab():
            raise ConfigError(f"pad_token: the tokenizer of {folder} does not know {pad_token!r}")
        tokenizer.pad_token = pad_token
    for name in ("pad_token", "eos_token"):
        if getattr(tokenizer, name) is None:
            raise ConfigError(
                f"the tokenizer of {folder} has no {name}: set it in its tokenizer_config.json (the padding "
                "may be the end-of-text token)"
            )
    return tokenizer


def load_base(
    folder: str | Path,
    *,
    dtype: torch.dtype,
    quantisation: str = "none",
    device: torch.device | None = None,
    has_dropout: bool = False,
) -> Any:
    """The language model of a base folder, causal or encoder-decoder, frozen, on the CPU unless told.

    ``quantisation`` is none, int8 or nf4. ``has_dropout`` leaves it the dropout rates of its config, which
    matter in training mode alone.
    """
    _require_folder(folder)
    offline = {"local_files_only": True, "trust_remote_code": False}
    config = AutoConfig.from_pretrained(folder, **offline)
    if not has_dropout:
        _remove_dropout(config)
    device = device or torch.device("cpu")
    more: dict[str, Any] = {}
    if quantisation != "none":
        how = quantisation_config(quantisation, dtype=dtype, device=device)
        more = {"quantization_config": how, "device_map": {"": device}}
    if device.type == "cpu" and not config.is_encoder_decoder:
        more["attn_implementation"] = "eager"  # the fused attention's backward pass is half of a step there
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with quiet_transformers():
        model: Any = kind.from_pretrained(
            folder, config=config, dtype=dtype, use_safetensors=True, **offline, **more
        )
    keep_trainable(model)
    fuse_activations(model)
    model.config.use_cache = False
    model.requires_grad_(False)
    return model.eval() if more else model.eval().to(device)


def fuse_activations(model: nn.Module) -> None:
    """Computes ``gelu_new`` (FLAN-T5, GPT-2, Phi) in one operation; transformers makes eight, each kept.

    The formula is the same, and so are the numbers but for rounding.
    """
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def empty_base(folder: str | Path) -> Any:
    """The language model of a base folder without weights: layers and shapes, on torch's meta device."""
    _require_folder(folder)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with quiet_transformers(), torch.device("meta"):
        return kind.from_config(config)


def _remove_dropout(config: Any) -> None:
    for name, rate in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(rate, float):
            setattr(config, name, 0.0)


def _require_folder(folder: str | Path) -> None:
    if not (Path(folder) / "config.json").is_file():
        raise ModelMissingError(f"no base model in {folder}; fetch it with 'guardrail models pull'")


def save_model(model: Any, folder: str | Path, *, tokenizer: Any) -> list[Path]:
    """Writes a whole model as a base folder: ``model.safetensors``, configuration, tokenizer; their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with quiet_transformers():
        model.save_pretrained(folder, max_shard_size=WHOLE)
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes 0600, which others cannot read
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name != FILENAME)
