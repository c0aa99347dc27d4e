"""A GGUF base as the folder that transformers opens, for torch: training, ``rewriters/lora.py``."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from guardrail.manifest import FILENAME, Manifest
from guardrail.models.blocks import as_floats
from guardrail.models.cache import cache_folder, clear_disk_errors, is_intact, publish, require_room, staging
from guardrail.models.copies import write_manifest
from guardrail.models.files import mapped
from guardrail.models.gguf import parse_gguf
from guardrail.models.safetensors import write_safetensors
from guardrail.models.tokenizer import byte_level
from guardrail.models.weights import ARCHITECTURES, Weights, gguf_of, read_weights

__all__ = ["COPY_SUFFIX", "for_torch", "quiet_transformers"]

COPY_SUFFIX = "-float32"
_TOKENS = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
"""transformers' names of control tokens, and ggml's."""


def for_torch(folder: Path) -> Path:
    """A base folder as transformers opens it: the folder itself, or a float32 copy if it holds a GGUF file.

    The copy is made once, in the cache, four bytes for each weight; its manifest names what the GGUF's names,
    so adapters fit both. Raises ModelFileError if the GGUF cannot be read or the disk is full.
    """
    if any(folder.glob("*.safetensors")) or not any(folder.glob("*.gguf")):
        return folder
    manifest = Manifest.load(folder, verify=False)
    identity = str(manifest.trained_on)
    target = cache_folder() / f"{folder.name}-{identity[:12]}{COPY_SUFFIX}"
    if not is_intact(target):
        with clear_disk_errors(), staging() as staged:
            new = staged / "model"
            new.mkdir()
            _write(gguf_of(folder), new)
            write_manifest(
                new,
                name=manifest.name,
                version=manifest.version,
                licence=manifest.licence,
                identity=identity,
            )
            publish(new, target, staged, is_done=lambda: is_intact(target))
    return target


def _write(gguf: Path, new: Path) -> None:
    weights, metadata = read_weights(gguf), parse_gguf(mapped(gguf), where=str(gguf)).metadata
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    require_room(new, 4 * sum(map(math.prod, shapes.values())), what=f"a float32 copy of {gguf.name}")
    for path in gguf.parent.iterdir():
        if path.is_file() and path not in (gguf, gguf.parent / FILENAME):
            shutil.copyfile(path, new / path.name)
    write_safetensors(new / "model.safetensors", shapes, _floats(weights))
    _write_json(new / "config.json", _config(weights, metadata))
    if not (new / "tokenizer.json").is_file():
        _write_tokenizer(new, metadata, gguf=gguf)


def _floats(weights: Weights) -> Iterator[Any]:
    for name in sorted(weights.tensors):
        yield as_floats(weights.tensors[name])


def _config(weights: Weights, metadata: Mapping[str, Any]) -> dict[str, Any]:
    shape = weights.shape
    architecture = str(metadata["general.architecture"])
    return {
        "architectures": [f"{ARCHITECTURES[architecture]}ForCausalLM"],
        "model_type": architecture,
        "dtype": "float32",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": metadata.get(f"{architecture}.context_length", 2048),
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": shape.tied,
        **{f"{name}_token_id": token_id for name, token_id in _control_ids(metadata) if name != "unk"},
    }


def _write_tokenizer(new: Path, metadata: Mapping[str, Any], *, gguf: Path) -> None:
    backend = byte_level(metadata, where=gguf)
    backend.save(str(new / "tokenizer.json"))
    named = {f"{name}_token": backend.id_to_token(token_id) for name, token_id in _control_ids(metadata)}
    _write_json(new / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **named})
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        (new / "chat_template.jinja").write_text(template, encoding="utf-8")


def _control_ids(metadata: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, ggml in _TOKENS.items():
        token_id = metadata.get(f"tokenizer.ggml.{ggml}_token_id")
        if isinstance(token_id, int):
            yield name, token_id


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keeps transformers from drawing progress bars of its own while inside."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
