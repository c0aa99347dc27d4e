"""The weights of a Llama or Qwen2 model as numpy arrays, from a GGUF file or a folder of safetensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.errors import ModelFileError
from guardrail.models.blocks import Matrix, as_floats, decoded
from guardrail.models.files import forget, mapped, read_object
from guardrail.models.gguf import Gguf, Stored, parse_gguf
from guardrail.models.safetensors import TensorEntry, safetensors_entries

__all__ = [
    "ARCHITECTURES",
    "LlamaShape",
    "OtherModelError",
    "Weights",
    "expected_shapes",
    "gguf_of",
    "read_weights",
]

ARCHITECTURES = {"llama": "Llama", "qwen2": "Qwen2"}
"""Of models that run here: their names in files, and in transformers' classes."""
MAX_SIZE = 1 << 24
SAMPLED_ROWS = 256
SAME = 0.2
"""Greatest distance, as a share of their length, at which rows are two roundings of the same numbers."""


class OtherModelError(ModelFileError):
    """A model that is whole, and neither a plain Llama nor a plain Qwen2; torch may run it."""


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """The measures of a Llama model, or of a Qwen2, which is a Llama whose queries, keys and values are
    ``biased``; ``tied``: the embedding is the output layer, too.
    """

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
    biased: bool = False


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
    missing, cut short or no such file, and for a model that is neither a plain Llama nor a plain Qwen2.
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
        raise ModelFileError(f"{path} holds tensors {unknown[:3]}, which are not part of a {_kind(shape)}")
    tensors = {str(names[name]): stored for name, stored in file.tensors.items()}
    if not shape.tied and (shared := _same_matrix(tensors[_EMBEDDING], tensors[_OUTPUT])) is not None:
        shape = replace(shape, tied=True)
        tensors = {name: stored for name, stored in tensors.items() if name != _OUTPUT}
        tensors[_EMBEDDING] = shared
    _require_tensors({name: stored.shape for name, stored in tensors.items()}, shape, where=path)
    readers = {name: _gguf_reader(name, tensors[name], shape) for name in tensors}
    return Weights(shape, _Tensors(readers, files=[content]))


def _gguf_reader(name: str, stored: Stored, shape: LlamaShape) -> Callable[[], Matrix]:
    if ".q_proj" in name and not shape.biased:
        return lambda: _halves(decoded(stored), heads=shape.heads)
    if ".k_proj" in name and not shape.biased:
        return lambda: _halves(decoded(stored), heads=shape.kv_heads)
    return lambda: decoded(stored)


def _same_matrix(one: Stored, other: Stored) -> Stored | None:
    """The finer of two tensors that hold the same matrix, judged by a sample of rows; None if they differ.

    llama.cpp's converter stores a matrix that is embedding and output layer twice, the embedding more
    coarsely. Between two roundings of one matrix there are a few hundredths of its size, between two
    matrices more than all of it.
    """
    if one.shape != other.shape:
        return None
    rows = np.linspace(0, one.shape[0] - 1, num=min(one.shape[0], SAMPLED_ROWS)).astype(np.intp)
    first, second = (
        as_floats(decoded(Stored(stored.kind, (len(rows), stored.shape[1]), stored.content[rows])))
        for stored in (one, other)
    )
    if np.linalg.norm(first - second) > SAME * np.linalg.norm(second):
        return None
    return max(one, other, key=lambda stored: stored.content.nbytes)


_MEASURES = {
    "block_count", "embedding_length", "feed_forward_length", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.freq_base",
    "rope.dimension_count", "attention.layer_norm_rms_epsilon", "vocab_size", "context_length",
}  # fmt: skip
"""Keys of a plain model; any other would change the arithmetic, unless it is off."""


def _gguf_shape(file: Gguf, *, where: Path) -> LlamaShape:
    architecture = file.metadata.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise _another(architecture, where=where)
    start = f"{architecture}."
    meta = {key[len(start) :]: value for key, value in file.metadata.items() if key.startswith(start)}
    strange = sorted(key for key in meta if key not in _MEASURES and not _is_off(meta[key]))
    if strange:
        raise OtherModelError(
            f"{where}: {strange} of this model are not those of a plain {ARCHITECTURES[architecture]}"
        )
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
            biased=architecture == "qwen2",
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{where} does not say what the model's measures are ({error})") from error
    _require_usable(shape, where=where)
    for key in ("rope.dimension_count", "attention.value_length"):
        if meta.get(key, shape.head_size) != shape.head_size:
            raise ModelFileError(f"{where}: {key} is {meta[key]}, and a head's size is {shape.head_size}")
    return shape


def _kind(shape: LlamaShape) -> str:
    return f"plain {ARCHITECTURES['qwen2' if shape.biased else 'llama']}"


def _is_off(value: Any) -> bool:
    return value in ("", "none") if isinstance(value, str) else not np.any(value)


def _another(architecture: object, *, where: Path) -> OtherModelError:
    return OtherModelError(
        f"{where} is a model of architecture {architecture!r}, and only 'llama' and 'qwen2' run without "
        "torch; guardrail.rewriters.lora.LoraRewriter (extra 'torch') runs others"
    )


_BIASED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
}  # fmt: skip
_WHOLE = {
    "token_embd.weight": _EMBEDDING,
    "output_norm.weight": "model.norm.weight",
    "output.weight": _OUTPUT,
}


def _state_name(name: str) -> str | None:
    """The name that transformers gives to a tensor of ggml's name."""
    pieces = name.split(".")
    if len(pieces) == 4 and pieces[0] == "blk" and pieces[2] in _PARTS:
        part, kind = _PARTS[pieces[2]], pieces[3]
        if kind == "weight" or (kind == "bias" and part in _BIASED):
            return f"model.layers.{pieces[1]}.{part}.{kind}"
    return _WHOLE.get(name)


def _halves(matrix: Matrix, *, heads: int) -> Matrix:
    """Rows of a rotated projection in transformers' order; GGUF has the two halves of a head interleaved."""
    rows = matrix.shape[0]
    return matrix[np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).ravel()]


# ---- safetensors


def _from_folder(folder: Path) -> Weights:
    if not (folder / "config.json").is_file():
        raise ModelFileError(f"{folder} has *.safetensors and no config.json; fetch the model again")
    shape = _config_shape(folder / "config.json")
    tensors: dict[str, TensorEntry] = {}
    files = {file: mapped(file) for file in sorted(folder.glob("*.safetensors"))}
    for file, content in files.items():
        for name, entry in safetensors_entries(content, where=str(file)).items():
            if name in tensors:
                raise ModelFileError(f"{file} holds {name}, which another file of the folder holds, too")
            if entry.kind not in _FLOATS:
                raise ModelFileError(f"{file}: {name} is stored in {entry.kind}, expected one of {_FLOATS}")
            tensors[name] = entry
    if shape.tied:
        tensors.pop(_OUTPUT, None)
    tensors = {name: entry for name, entry in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    _require_tensors({name: entry.shape for name, entry in tensors.items()}, shape, where=folder)
    readers = {name: _entry_reader(entry) for name, entry in tensors.items()}
    return Weights(shape, _Tensors(readers, files=list(files.values())))


_FLOATS = ("F64", "F32", "F16", "BF16")


def _entry_reader(entry: TensorEntry) -> Callable[[], Matrix]:
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
            biased=config["model_type"] == "qwen2",
        )
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ModelFileError(f"{path} is not a configuration of a Llama or Qwen2 model ({error})") from error
    _require_usable(shape, where=path)
    return shape


def _require_plain(config: Mapping[str, Any], *, where: Path) -> None:
    """Raises ModelFileError for what would change the arithmetic."""
    if (architecture := config.get("model_type")) not in ARCHITECTURES:
        raise _another(architecture, where=where)
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    strange = {
        "hidden_act": config.get("hidden_act", "silu") != "silu",
        "attention_bias": config.get("attention_bias"),
        "mlp_bias": config.get("mlp_bias"),
        "use_sliding_window": config.get("use_sliding_window"),
        "layer_types": set(config.get("layer_types") or ()) - {"full_attention"},
        "rope_scaling": scaling.get("rope_type", scaling.get("type", "default")) != "default",
        "partial_rotary_factor": {scaling.get("partial_rotary_factor"), config.get("partial_rotary_factor")}
        - {None, 1},
        "quantization_config": config.get("quantization_config"),
        "auto_map": config.get("auto_map"),
    }
    if found := sorted(name for name, is_strange in strange.items() if is_strange):
        raise OtherModelError(
            f"{where}: {found} of this model are not those of a plain {ARCHITECTURES[architecture]}"
        )


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
    """Raises ModelFileError unless each tensor that a model of this shape has is there, and no other."""
    # One missing name is enough: a shape that lies may have more layers than memory has room for.
    expected: dict[str, tuple[int, ...]] = {}
    for name, size in _expected(shape):
        if name not in found:
            raise ModelFileError(
                f"{where} lacks the tensor {name} of a {_kind(shape)} with {shape.layers} layers"
            )
        if found[name] != size:
            raise ModelFileError(f"{where}: {name} is {found[name]}, expected {size}")
        expected[name] = size
    if strange := sorted(set(found) - set(expected)):
        raise ModelFileError(f"{where} holds tensors {strange[:3]}, which are not part of a {_kind(shape)}")


def expected_shapes(shape: LlamaShape) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor that a model of these measures has, by name."""
    return dict(_expected(shape))


def _expected(shape: LlamaShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield _EMBEDDING, (shape.vocabulary, shape.width)
    yield "model.norm.weight", (shape.width,)
    if not shape.tied:
        yield _OUTPUT, (shape.vocabulary, shape.width)
    queries, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (shape.width,)
        yield f"{prefix}.post_attention_layernorm.weight", (shape.width,)
        yield f"{prefix}.self_attn.q_proj.weight", (queries, shape.width)
        yield f"{prefix}.self_attn.k_proj.weight", (keys, shape.width)
        yield f"{prefix}.self_attn.v_proj.weight", (keys, shape.width)
        if shape.biased:
            for part, size in zip(_BIASED, (queries, keys, keys), strict=True):
                yield f"{prefix}.{part}.bias", (size,)
        yield f"{prefix}.self_attn.o_proj.weight", (shape.width, queries)
        yield f"{prefix}.mlp.gate_proj.weight", (shape.mlp, shape.width)
        yield f"{prefix}.mlp.up_proj.weight", (shape.mlp, shape.width)
        yield f"{prefix}.mlp.down_proj.weight", (shape.width, shape.mlp)
