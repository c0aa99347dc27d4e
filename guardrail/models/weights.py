"""The weights of a Llama model as numpy arrays, from a GGUF file or a folder of safetensors."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ModelFileError
from guardrail.models.gguf import Gguf, Stored, parse_gguf
from guardrail.models.safetensors import parse_safetensors

__all__ = ["BLOCK", "Blocks", "LlamaShape", "Weights", "expected_shapes", "read_weights"]

BLOCK = 32

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The measures of a Llama model; ``tied``: the embedding is the output layer, too."""

    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    rope_theta: float
    epsilon: float
    tied: bool


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A quantised matrix: each 32 weights of a row share a scale, and a minimum where there is one.

    w = scale * quant + minimum. ``quants`` is (rows, columns), uint8 in 0..15 for 4 bits, int8 for 8;
    ``scale`` and ``minimum`` are (rows, columns / 32).
    """

    bits: int
    quants: npt.NDArray[np.uint8] | npt.NDArray[np.int8]
    scale: Floats
    minimum: Floats | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.quants.shape
        return rows, columns

    def dequantised(self) -> Floats:
        """The matrix in float32, (rows, columns)."""
        rows, columns = self.shape
        blocks = self.quants.reshape(rows, columns // BLOCK, BLOCK).astype(np.float32)
        blocks *= self.scale[:, :, None]
        if self.minimum is not None:
            blocks += self.minimum[:, :, None]
        return blocks.reshape(rows, columns)


Matrix = Floats | Blocks


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """A model's measures, and its tensors by the names of a transformers state dict, (outputs, inputs)."""

    shape: LlamaShape
    tensors: Mapping[str, Matrix]


def read_weights(path: str | Path) -> Weights:
    """The weights of a ``.gguf`` file, or of a folder with ``*.safetensors`` and ``config.json``.

    A folder without safetensors may hold one ``.gguf`` file. Raises ModelFileError for a file that is
    missing, cut short or no such file, and for a model that is not a plain Llama.
    """
    path = Path(path)
    if path.is_dir():
        if not any(path.glob("*.safetensors")) and (found := sorted(path.glob("*.gguf"))):
            return _from_gguf(found[0])
        return _from_folder(path)
    return _from_gguf(path)


def _mapped(path: Path) -> memoryview:
    """A file's bytes, read when they are looked at."""
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise ModelFileError(f"{path} cannot be read ({error}); fetch the model again") from error


# ---- GGUF


def _from_gguf(path: Path) -> Weights:
    file = parse_gguf(_mapped(path), where=str(path))
    shape = _gguf_shape(file, where=path)
    tensors: dict[str, Matrix] = {}
    for name, stored in file.tensors.items():
        known = _state_name(name)
        if known is None:
            raise ModelFileError(f"{path} holds a tensor {name!r}, which no plain Llama has")
        matrix = _matrix(stored)
        for part, heads in ((".q_proj", shape.heads), (".k_proj", shape.kv_heads)):
            if part in known:
                matrix = _halves(matrix, heads=heads)
        tensors[known] = matrix
    return _checked(Weights(shape, tensors), where=path)


def _gguf_shape(file: Gguf, *, where: Path) -> LlamaShape:
    meta = file.metadata
    architecture = meta.get("general.architecture")
    if architecture != "llama":
        raise ModelFileError(f"{where} is a model of architecture {architecture!r}, expected 'llama'")
    try:
        heads, width = int(meta["llama.attention.head_count"]), int(meta["llama.embedding_length"])
        return LlamaShape(
            layers=int(meta["llama.block_count"]),
            width=width,
            mlp=int(meta["llama.feed_forward_length"]),
            heads=heads,
            kv_heads=int(meta.get("llama.attention.head_count_kv", heads)),
            head_size=int(meta.get("llama.attention.key_length", width // heads)),
            vocabulary=len(file.tensors["token_embd.weight"].content),
            rope_theta=float(meta.get("llama.rope.freq_base", 10000.0)),
            epsilon=float(meta["llama.attention.layer_norm_rms_epsilon"]),
            tied="output.weight" not in file.tensors,
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelFileError(f"{where} lacks a usable {error} of a Llama model") from error


_PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
_WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def _state_name(name: str) -> str | None:
    """The name that transformers gives to a tensor of ggml's name."""
    pieces = name.split(".")
    if len(pieces) == 4 and pieces[0] == "blk" and pieces[2] in _PARTS and pieces[3] == "weight":
        return f"model.layers.{pieces[1]}.{_PARTS[pieces[2]]}.weight"
    return _WHOLE.get(name)


def _matrix(stored: Stored) -> Matrix:
    content = stored.content
    if stored.kind in ("F32", "F16"):
        floats = content.view(np.dtype("<f4" if stored.kind == "F32" else "<f2")).astype(np.float32)
        return floats[0] if len(floats) == 1 else floats
    rows, blocks = len(content), stored.columns // BLOCK
    size = content.shape[1] // blocks
    block = content.reshape(rows, blocks, size)
    head = np.ascontiguousarray(block[:, :, : size - (32 if stored.kind == "Q8_0" else 16)])
    scales = head.view("<f2").astype(np.float32)  # (rows, blocks, 1 or 2)
    if stored.kind == "Q8_0":
        return Blocks(8, block[:, :, 2:].reshape(rows, -1).view(np.int8), scales[:, :, 0].copy())
    nibbles = block[:, :, 4:]
    quants = np.empty((rows, blocks, BLOCK), dtype=np.uint8)
    np.bitwise_and(nibbles, 15, out=quants[:, :, :16])
    np.right_shift(nibbles, 4, out=quants[:, :, 16:])
    return Blocks(4, quants.reshape(rows, -1), scales[:, :, 0].copy(), scales[:, :, 1].copy())


def _halves(matrix: Matrix, *, heads: int) -> Matrix:
    """Rows of a rotated projection in transformers' order; GGUF has the two halves of a head interleaved."""
    rows = len(matrix.quants) if isinstance(matrix, Blocks) else len(matrix)
    order = np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).ravel()
    if not isinstance(matrix, Blocks):
        return matrix[order]
    minimum = None if matrix.minimum is None else matrix.minimum[order]
    return replace(matrix, quants=matrix.quants[order], scale=matrix.scale[order], minimum=minimum)


# ---- safetensors


def _from_folder(folder: Path) -> Weights:
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise ModelFileError(f"{folder} has no *.safetensors with a config.json")
    shape = _config_shape(folder / "config.json")
    tensors: dict[str, Matrix] = {}
    for file in files:
        for name, array in parse_safetensors(_mapped(file), where=str(file)).items():
            if not (shape.tied and name == "lm_head.weight") and not name.endswith("rotary_emb.inv_freq"):
                tensors[name] = np.ascontiguousarray(array, dtype=np.float32)
    return _checked(Weights(shape, tensors), where=folder)


def _config_shape(path: Path) -> LlamaShape:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        _require_plain(config, where=path)
        rope = config.get("rope_parameters") or {}
        heads, width = config["num_attention_heads"], config["hidden_size"]
        return LlamaShape(
            layers=config["num_hidden_layers"],
            width=width,
            mlp=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or width // heads,
            vocabulary=config["vocab_size"],
            rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            epsilon=float(config["rms_norm_eps"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{path} is no configuration of a Llama model ({error})") from error


def _require_plain(config: Mapping[str, Any], *, where: Path) -> None:
    """Raises ModelFileError for what would change the arithmetic."""
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    strange = {
        "model_type": config["model_type"] != "llama",
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "attention_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
        "rope_scaling": scaling.get("rope_type", scaling.get("type", "default")) != "default",
    }
    if found := sorted(name for name, is_strange in strange.items() if is_strange):
        raise ModelFileError(f"{where}: {found} of this model are not those of a plain Llama")


# ---- both


def _checked(weights: Weights, *, where: Path) -> Weights:
    """The weights, if each tensor that a Llama of this shape has is there in its shape, and no other."""
    expected = expected_shapes(weights.shape)
    missing, strange = set(expected) - set(weights.tensors), set(weights.tensors) - set(expected)
    if missing or strange:
        raise ModelFileError(
            f"{where}: tensors {sorted(missing)[:3]} are missing, {sorted(strange)[:3]} unknown"
        )
    for name, tensor in weights.tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise ModelFileError(f"{where}: {name} is {tuple(tensor.shape)}, expected {expected[name]}")
    return weights


def expected_shapes(shape: LlamaShape) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a Llama of these measures has, by name."""
    return dict(_expected(shape))


def _expected(shape: LlamaShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens.weight", (shape.vocabulary, shape.width)
    yield "model.norm.weight", (shape.width,)
    if not shape.tied:
        yield "lm_head.weight", (shape.vocabulary, shape.width)
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (shape.width,)
        yield f"{prefix}.post_attention_layernorm.weight", (shape.width,)
        yield f"{prefix}.self_attn.q_proj.weight", (queries, shape.width)
        yield f"{prefix}.self_attn.k_proj.weight", (keys, shape.width)
        yield f"{prefix}.self_attn.v_proj.weight", (keys, shape.width)
        yield f"{prefix}.self_attn.o_proj.weight", (shape.width, queries)
        yield f"{prefix}.mlp.gate_proj.weight", (shape.mlp, shape.width)
        yield f"{prefix}.mlp.up_proj.weight", (shape.mlp, shape.width)
        yield f"{prefix}.mlp.down_proj.weight", (shape.width, shape.mlp)
