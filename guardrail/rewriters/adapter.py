"""LoRA adapters from strangers: read as data, checked against an allow-list, never executed or unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ManifestError, ModelFileError
from guardrail.manifest import Manifest, Template
from guardrail.models.safetensors import parse_safetensors

__all__ = ["MAX_RANK", "Adapter", "Factors", "read_adapter"]

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MAX_RANK = 256

_USED = {"peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "bias", "init_lora_weights"}
# What these say does not change how a finished adapter is applied. The base comes from the manifest alone.
_IGNORED = {
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "inference_mode", "lora_dropout",
    "megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
}  # fmt: skip
# What these switch on would change the arithmetic, so they are known and must be off.
_OFF = {
    "alora_invocation_tokens", "alpha_pattern", "arrow_config", "corda_config", "eva_config",
    "exclude_modules", "fan_in_fan_out", "kasa_config", "layer_replication", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_bias", "lora_ga_config", "megatron_config",
    "modules_to_save", "monteclora_config", "rank_pattern", "target_parameters",
    "trainable_token_indices", "use_bdlora", "use_dora", "use_qalora", "velora_config",
}  # fmt: skip
_LITERAL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_TENSOR_NAME = re.compile(r"base_model\.model\.(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<side>[AB])\.weight")


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """The low-rank matrices of one layer: ``down`` is (r, inputs), ``up`` is (outputs, r), both float32."""

    down: npt.NDArray[np.float32]
    up: npt.NDArray[np.float32]


class Adapter:
    """A checked adapter in memory: its manifest, its prompt template, and what it adds to which layers.

    A layer's weight becomes ``W + scale * up @ down`` (LoRA, https://arxiv.org/abs/2106.09685, section 4.1).
    """

    def __init__(self, manifest: Manifest, *, scale: float, layers: Mapping[str, Factors]) -> None:
        self.manifest = manifest
        self.template = Template(manifest.template or "")
        self.scale = scale
        self.layers = layers


def read_adapter(folder: str | Path) -> Adapter:
    """The adapter of a folder with a manifest, ``adapter_config.json`` and ``adapter_model.safetensors``.

    The bytes that were hashed are the bytes that are parsed. Raises ManifestError or ModelFileError, saying
    what is wrong, for anything that is not a plain LoRA adapter of rank 256 or less with literal layer names.
    """
    folder = Path(folder)
    manifest = Manifest.load(folder, verify=False)
    if manifest.kind != "adapter" or manifest.template is None:
        raise ManifestError(f"{folder} holds a {manifest.kind}, expected an adapter with a prompt template")
    config = _config(_read(folder, CONFIG, manifest), where=folder / CONFIG)
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
    layers = _layers(
        _read(folder, WEIGHTS, manifest), rank=rank, targets=config["target_modules"], folder=folder
    )
    return Adapter(manifest, scale=scale, layers=layers)


def _read(folder: Path, name: str, manifest: Manifest) -> bytes:
    expected = manifest.files.get(name)
    if expected is None:
        raise ManifestError(
            f"the manifest of {folder} does not list {name}; only safetensors adapters are opened"
        )
    try:
        content = (folder / name).read_bytes()
    except FileNotFoundError as error:
        raise ManifestError(f"{folder / name} is missing; reinstall or fetch the adapter again") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise ManifestError(
            f"{folder / name} has sha256 {actual[:16]}..., its manifest says {expected[:16]}...: "
            "it was altered or cut short; reinstall or fetch the adapter again"
        )
    return content


def _config(content: bytes, *, where: Path) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise ModelFileError(f"{where} is not valid JSON") from error
    if not isinstance(config, dict):
        raise ModelFileError(f"{where} must hold a JSON object")
    unknown = sorted(set(config) - _USED - _IGNORED - _OFF)
    _require(not unknown, where, f"unknown keys {unknown}")
    switched_on = sorted(key for key in _OFF if config.get(key))
    _require(
        not switched_on, where, f"{switched_on} would change how the adapter is applied; only plain LoRA is"
    )
    _require(config.get("peft_type") == "LORA", where, "peft_type must be LORA")
    _require(config.get("bias", "none") == "none", where, "bias must be none")
    # The other initialisations (PiSSA, OLoRA, ...) alter the base, which an adapter file does not show.
    initialised = config.get("init_lora_weights", True)
    _require(
        initialised in (True, False, "gaussian"), where, "init_lora_weights must be true, false or gaussian"
    )
    rank, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    _require(
        type(rank) is int and 1 <= rank <= MAX_RANK,
        where,
        f"r must be between 1 and {MAX_RANK}, got {rank!r}",
    )
    finite = isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and math.isfinite(alpha)
    _require(finite, where, "lora_alpha must be a number")
    literal = isinstance(targets, list) and all(
        isinstance(t, str) and _LITERAL_NAME.fullmatch(t) for t in targets
    )
    _require(bool(targets) and literal, where, "target_modules must be a list of literal layer names")
    return config


def _layers(content: bytes, *, rank: int, targets: list[str], folder: Path) -> dict[str, Factors]:
    where = folder / WEIGHTS
    tensors = parse_safetensors(content, where=str(where))
    sides: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR_NAME.fullmatch(name)
        _require(match is not None, where, f"tensor {name!r} is not part of a LoRA layer")
        assert match is not None  # for the type checker
        module = match["module"]
        _require(
            any(f".{module}".endswith(f".{t}") for t in targets), where, f"{module!r} is not a target module"
        )
        floats = tensor.dtype.kind == "f" and bool(np.isfinite(tensor).all())
        _require(floats, where, f"tensor {name!r} holds values that are not finite floats")
        sides.setdefault(module, {})[match["side"]] = tensor.astype(np.float32)
    _require(bool(sides), where, "no layers")
    for module, pair in sides.items():
        _require(set(pair) == {"A", "B"}, where, f"{module!r} lacks one of its two matrices")
        shapes = pair["A"].shape, pair["B"].shape
        low_rank = all(len(shape) == 2 for shape in shapes) and shapes[0][0] == shapes[1][1] == rank
        _require(low_rank, where, f"{module!r} has shapes {shapes}, not of rank {rank}")
    return {module: Factors(down=pair["A"], up=pair["B"]) for module, pair in sides.items()}


def _require(holds: bool, where: Path, problem: str) -> None:
    if not holds:
        raise ModelFileError(f"{where}: {problem}")
