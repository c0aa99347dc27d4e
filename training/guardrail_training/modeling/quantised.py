"""Frozen bases in 8 or 4 bits and optimizers with 8-bit state, by bitsandbytes."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from guardrail.errors import ConfigError, MissingExtraError

__all__ = ["keep_trainable", "make_optimizer", "quantisation_config", "stored_parameters"]

NF4_BLOCK = 64
CPU_SINCE = (0, 50)
# It says once per layer and call that LLM.int8 multiplies in float16.
CASTS = "bitsandbytes.autograd._functions"


def quantisation_config(quantisation: str, *, dtype: torch.dtype, device: torch.device) -> Any:
    """What ``from_pretrained`` needs to load a base as ``int8`` (LLM.int8) or ``nf4``.

    LLM.int8 is Dettmers et al. 2022 (arXiv 2208.07339); 4-bit NormalFloat with double quantisation is
    Dettmers et al. 2023 (arXiv 2305.14314). Raises as ``make_optimizer`` does.
    """
    _bitsandbytes(f"quantisation = {quantisation!r}", device=device)
    from transformers import BitsAndBytesConfig

    if quantisation == "int8":
        logging.getLogger(CASTS).setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def keep_trainable(model: nn.Module) -> None:
    """Makes gradients pass through a model's 4-bit layers; a model without any stays as it is.

    Raises ConfigError for a layer that cannot be cut into blocks.
    """
    for name, layer in model.named_modules():
        if type(layer).__name__ != "Linear4bit":
            continue
        inputs = int(layer.in_features)
        if inputs % NF4_BLOCK:
            raise ConfigError(
                f"nf4 works in blocks of {NF4_BLOCK} inputs, layer {name!r} has {inputs}: take "
                "quantisation = 'int8'"
            )
        # On a CPU with AVX512-BF16 the first pass in evaluation mode packs the weights for a kernel that has
        # no gradient, and they would stay packed.
        layer.support_avx512bf16_for_cpu = False


def stored_parameters(parameter: nn.Parameter) -> int:
    """How many numbers a parameter stands for; two in a byte are two."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()


def make_optimizer(
    kind: str, parameters: Iterable[nn.Parameter], *, rate: float, weight_decay: float, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW with its state in float32, in 8 bits, or in 8 bits that a GPU may page out; a CPU pages nothing.

    The 8-bit state is that of Dettmers et al. 2021 (arXiv 2110.02861); matrices under 4096 values keep theirs
    in float32. Raises MissingExtraError without bitsandbytes, ConfigError if it needs a GPU.
    """
    if kind == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=weight_decay)
    optimizers = _bitsandbytes(f"optimizer = {kind!r}", device=device).optim
    is_paged = kind == "paged_adamw8bit" and device.type == "cuda"
    chosen = optimizers.PagedAdamW8bit if is_paged else optimizers.AdamW8bit
    optimizer: torch.optim.Optimizer = chosen(list(parameters), lr=rate, weight_decay=weight_decay)
    return optimizer


def _bitsandbytes(setting: str, *, device: torch.device) -> Any:
    try:
        with _quiet():
            import bitsandbytes
    except ImportError as error:
        raise MissingExtraError(feature=setting, extra="train") from error
    installed = version("bitsandbytes")
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", installed)[:2])
    if device.type == "cpu" and numbers < CPU_SINCE:
        raise ConfigError(
            f"{setting} needs a GPU with bitsandbytes {installed}; on a CPU it needs 0.50 or later"
        )
    return bitsandbytes


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings of torch about how bitsandbytes is written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield
