"""The weights of a Llama model as numpy arrays, from a GGUF file or a folder of safetensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ModelFileError
from guardrail.models.files import forget, mapped, read_object
from guardrail.models.gguf import Gguf, Stored, parse_gguf
from guardrail.models.safetensors import Entry, safetensors_entries

__all__ = [
    "BLOCK",
    "Blocks",
    "LlamaShape",
    "Matrix",
    "OtherModelError",
    "Weights",
    "expected_shapes",
    "gguf_of",
    "read_weights",
]

BLOCK = 32
MAX_SIZE = 1 << 24

Floats = npt.NDArray[np.float32]


class OtherModelError(ModelFileError):
    """A model that is whole, and no plain Llama; torch may run it."""


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
    """A model's measures, and its tensors by the names of a transformers state dict.

    Matrices are (outputs, inputs). A tensor is read from the disk and decoded at every look-up.
    """

    shape: LlamaShape
    tensors: Mapping[str, Matrix]


def read_weights(path: str | Path) -> Weights:
    """The weights of a ``.gguf`` file, or of a folder with ``*.safetensors`` and ``config.json``.

    A folder without safetensors may hold one ``.gguf`` file. Raises ModelFileError for a file that is
    missing, cut short or no such file, and for a model that is not a plain Llama.
    """
    path = Path(path)
    if not path.is_dir():
        return _from_gguf(path)
    if any(path.glob("*.safetensors")):
        return _from_folder(path)
    return _from_gguf(gguf_of(path))


def gguf_of(folder: Path) -> Path:
    """The one GGUF file of a folder; ModelFileError if there is none, or more than one."""
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise ModelFileError(
            f"{folder} has {len(found) or 'no'} *.gguf and no *.safetensors; expected one GGUF file, or "
            "*.safetensors with a config.json"
        )
    return found[0]


class _Tensors(Mapping[str, Matrix]):
    """Tensors that are decoded when they are looked up; of their files nothing is kept in memory."""

    def __init__(self, readers: Mapping[str, Callable[[], Matrix]], *, files: Sequence[memoryview]) -> None:
        self._readers = readers
        self._files = files

    def __getitem__(self, name: str) -> Matrix:
        tensor = self._readers[name]()
        for content in self._files:
            forget(content)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


# ---- GGUF


def _from_gguf(path: Path) -> Weights:
    content = mapped(path)
    file = parse_gguf(content, where=str(path))
    shape = _gguf_shape(file, where=path)
    names = {name: _state_name(name) for name in file.tensors}
    unknown = sorted(name for name, known in names.items() if known is None)
    if unknown:
        raise ModelFileError(f"{path} holds tensors {unknown[:3]}, which no plain Llama has")
    tensors = {str(names[name]): stored for name, stored in file.tensors.items()}
    _require_tensors({name: stored.shape for name, stored in tensors.items()}, shape, where=path)
    readers = {name: _gguf_reader(name, tensors[name], shape) for name in tensors}
    return Weights(shape, _Tensors(readers, files=[content]))


def _gguf_reader(name: str, stored: Stored, shape: LlamaShape) -> Callable[[], Matrix]:
    if ".q_proj" in name:
        return lambda: _halves(_matrix(stored), heads=shape.heads)
    if ".k_proj" in name:
        return lambda: _halves(_matrix(stored), heads=shape.kv_heads)
    return lambda: _matrix(stored)


_MEASURES = {
    "block_count", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.freq_base",
    "rope.dimension_count", "attention.layer_norm_rms_epsilon", "vocab_size", "context_length",
}  # fmt: skip
"""Keys of a plain Llama; any other would change the arithmetic, unless it is off."""


def _gguf_shape(file: Gguf, *, where: Path) -> LlamaShape:
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise _another(architecture, where=where)
    start = "llama."
    meta = {key[len(start) :]: value for key, value in file.metadata.items() if key.startswith(start)}
    strange = sorted(key for key in meta if key not in _MEASURES and not _is_off(meta[key]))
    if strange:
        raise OtherModelError(f"{where}: {strange} of this model are not those of a plain Llama")
    try:
        heads, width = meta["attention.head_count"], meta["embedding_length"]
        shape = LlamaShape(
            layers=meta["block_count"],
            width=width,
            mlp=meta["feed_forward_length"],
            heads=heads,
            kv_heads=meta.get("attention.head_count_kv", heads),
            head_size=meta.get("attention.key_length", width // heads),
            vocabulary=file.tensors["token_embd.weight"].shape[0],
            rope_theta=meta.get("rope.freq_base", 10000.0),
            epsilon=meta["attention.layer_norm_rms_epsilon"],
            tied="output.weight" not in file.tensors,
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{where} does not say what a Llama's measures are ({error})") from error
    _require_usable(shape, where=where)
    for key in ("rope.dimension_count", "attention.value_length"):
        if meta.get(key, shape.head_size) != shape.head_size:
            raise ModelFileError(f"{where}: {key} is {meta[key]}, and a head's size is {shape.head_size}")
    return shape


def _is_off(value: Any) -> bool:
    return value in ("", "none") if isinstance(value, str) else not np.any(value)


def _another(architecture: object, *, where: Path) -> OtherModelError:
    return OtherModelError(
        f"{where} is a model of architecture {architecture!r}, and only 'llama' runs without torch; "
        "guardrail.rewriters.lora.LoraRewriter (extra 'torch') runs others"
    )


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
        kind = "<f4" if stored.kind == "F32" else "<f2"
        return content.view(kind).astype(np.float32).reshape(stored.shape)
    rows, blocks = len(content), stored.shape[-1] // BLOCK
    block = content.reshape(rows, blocks, -1)  # (rows, blocks, bytes of a block)
    numbers = BLOCK if stored.kind == "Q8_0" else BLOCK // 2
    scales = np.ascontiguousarray(block[:, :, :-numbers]).view("<f2").astype(np.float32)
    if stored.kind == "Q8_0":
        return Blocks(8, block[:, :, 2:].reshape(rows, -1).view(np.int8), scales[:, :, 0].copy())
    nibbles = block[:, :, 4:]
    quants = np.empty((rows, blocks, BLOCK), dtype=np.uint8)
    np.bitwise_and(nibbles, 15, out=quants[:, :, :16])
    np.right_shift(nibbles, 4, out=quants[:, :, 16:])
    return Blocks(4, quants.reshape(rows, -1), scales[:, :, 0].copy(), scales[:, :, 1].copy())


def _halves(matrix: Matrix, *, heads: int) -> Matrix:
    """Rows of a rotated projection in transformers' order; GGUF has the two halves of a head interleaved."""
    rows = matrix.shape[0]
    order = np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).ravel()
    if not isinstance(matrix, Blocks):
        return matrix[order]
    minimum = None if matrix.minimum is None else matrix.minimum[order]
    return replace(matrix, quants=matrix.quants[order], scale=matrix.scale[order], minimum=minimum)


# ---- safetensors


def _from_folder(folder: Path) -> Weights:
    if not (folder / "config.json").is_file():
        raise ModelFileError(f"{folder} has *.safetensors and no config.json; fetch the model again")
    shape = _config_shape(folder / "config.json")
    tensors: dict[str, Entry] = {}
    files = {file: mapped(file) for file in sorted(folder.glob("*.safetensors"))}
    for file, content in files.items():
        for name, entry in safetensors_entries(content, where=str(file)).items():
            if name in tensors:
                raise ModelFileError(f"{file} holds {name}, which another file of the folder holds, too")
            if entry.kind not in _FLOATS:
                raise ModelFileError(f"{file}: {name} is stored in {entry.kind}, expected one of {_FLOATS}")
            tensors[name] = entry
    if shape.tied:
        tensors.pop("lm_head.weight", None)
    tensors = {name: entry for name, entry in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    _require_tensors({name: entry.shape for name, entry in tensors.items()}, shape, where=folder)
    readers = {name: _entry_reader(entry) for name, entry in tensors.items()}
    return Weights(shape, _Tensors(readers, files=list(files.values())))


_FLOATS = ("F64", "F32", "F16", "BF16")


def _entry_reader(entry: Entry) -> Callable[[], Matrix]:
    return lambda: np.ascontiguousarray(entry.array(), dtype=np.float32)


def _config_shape(path: Path) -> LlamaShape:
    config = read_object(path)
    try:
        _require_plain(config, where=path)
        rope = config.get("rope_parameters") or {}
        heads, width = config["num_attention_heads"], config["hidden_size"]
        shape = LlamaShape(
            layers=config["num_hidden_layers"],
            width=width,
            mlp=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or width // heads,
            vocabulary=config["vocab_size"],
            rope_theta=rope.get("rope_theta") or config.get("rope_theta") or 10000.0,
            epsilon=config["rms_norm_eps"],
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{path} is not a configuration of a Llama model ({error})") from error
    _require_usable(shape, where=path)
    return shape


def _require_plain(config: Mapping[str, Any], *, where: Path) -> None:
    """Raises ModelFileError for what would change the arithmetic."""
    if config.get("model_type") != "llama":
        raise _another(config.get("model_type"), where=where)
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    strange = {
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "attention_bias": config.get("attention_bias"),
        "mlp_bias": config.get("mlp_bias"),
        "rope_scaling": scaling.get("rope_type", scaling.get("type", "default")) != "default",
        "partial_rotary_factor": {scaling.get("partial_rotary_factor"), config.get("partial_rotary_factor")}
        - {None, 1},
        "quantization_config": config.get("quantization_config"),
        "auto_map": config.get("auto_map"),
    }
    if found := sorted(name for name, is_strange in strange.items() if is_strange):
        raise OtherModelError(f"{where}: {found} of this model are not those of a plain Llama")


# ---- both


def _require_usable(shape: LlamaShape, *, where: Path) -> None:
    """Raises ModelFileError for a shape that no model can have."""
    for field in fields(shape):
        value = getattr(shape, field.name)
        whole = type(value) is int and 1 <= value <= MAX_SIZE
        real = isinstance(value, (int, float)) and math.isfinite(value) and value > 0
        if not {"int": whole, "float": real, "bool": True}[str(field.type)]:
            raise ModelFileError(f"{where}: {field.name} of this model is {value!r:.40}")
    if shape.heads % shape.kv_heads or shape.head_size % 2:
        raise ModelFileError(
            f"{where}: {shape.heads} heads of size {shape.head_size} cannot share {shape.kv_heads} keys"
        )


def _require_tensors(found: Mapping[str, tuple[int, ...]], shape: LlamaShape, *, where: Path) -> None:
    """Raises ModelFileError unless each tensor that a Llama of this shape has is there, and no other."""
    # One missing name is enough: a shape that lies may have more layers than memory has room for.
    expected: dict[str, tuple[int, ...]] = {}
    for name, size in _expected(shape):
        if name not in found:
            raise ModelFileError(f"{where} lacks the tensor {name} of a Llama with {shape.layers} layers")
        if found[name] != size:
            raise ModelFileError(f"{where}: {name} is {found[name]}, expected {size}")
        expected[name] = size
    if strange := sorted(set(found) - set(expected)):
        raise ModelFileError(f"{where} holds tensors {strange[:3]}, which no plain Llama has")


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
