"""GGUF files for tests: a tiny Llama or Qwen2 as llama.cpp's converter writes it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
KINDS = {"F32": 0, "F16": 1, "Q4_1": 3, "Q8_0": 8}
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
WHOLE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def ggml_name(name: str) -> str:
    """ggml's name of a tensor of a transformers state dict."""
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, part = name.split(".", 3)
    part, _, kind = part.rpartition(".")
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def interleaved(weight: Array, heads: int) -> Array:
    """Rows of a query or key projection in the order in which llama.cpp rotates them."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def packed(weight: Array, kind: str) -> bytes:
    """A tensor in one of ggml's forms, blocks of 32 for the quantised ones."""
    if kind in ("F32", "F16"):
        return weight.astype("<f4" if kind == "F32" else "<f2").tobytes()
    blocks = weight.reshape(-1, 32).astype(np.float32)
    if kind == "Q8_0":
        scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127 + 1e-6).astype("<f2")
        quants = np.rint(blocks / scale.astype(np.float32)).clip(-127, 127).astype(np.int8)
        return np.concatenate([scale.view(np.uint8), quants.view(np.uint8)], axis=1).tobytes()
    low = blocks.min(axis=1, keepdims=True).astype("<f2")
    scale = ((blocks.max(axis=1, keepdims=True) - low) / 15 + 1e-4).astype("<f2")
    nibbles = np.rint((blocks - low) / scale.astype(np.float32)).clip(0, 15).astype(np.uint8)
    bytes_ = nibbles[:, :16] | nibbles[:, 16:] << 4
    return np.concatenate([scale.view(np.uint8), low.view(np.uint8), bytes_], axis=1).tobytes()


def string(text: str) -> bytes:
    """A string as GGUF has it."""
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def value(content: Any) -> bytes:
    """A metadata value with its type in front."""
    if isinstance(content, bool):
        return struct.pack("<I?", 7, content)
    if isinstance(content, int):
        return struct.pack("<Ii", 5, content)
    if isinstance(content, float):
        return struct.pack("<If", 6, content)
    if isinstance(content, str):
        return struct.pack("<I", 8) + string(content)
    items = [value(item) for item in content]
    inner = items[0][:4] if items else struct.pack("<I", 4)
    return struct.pack("<I", 9) + inner + struct.pack("<Q", len(items)) + b"".join(i[4:] for i in items)


def gguf_bytes(
    metadata: Mapping[str, Any], tensors: Mapping[str, tuple[str, Sequence[int], bytes]], *, version: int = 3
) -> bytes:
    """A GGUF file; tensors by ggml's name: kind, shape as numpy counts, content."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(string(key) + value(content) for key, content in metadata.items())
    body = b""
    for name, (kind, shape, content) in tensors.items():
        body += bytes(-len(body) % 32)
        head += string(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", size) for size in reversed(shape))
        head += struct.pack("<IQ", KINDS[kind], len(body))
        body += content
    return head + bytes(-len(head) % 32) + body


def metadata_of(base: Path) -> dict[str, Any]:
    """What a GGUF file says of a base folder of transformers: measures and tokenizer."""
    config = json.loads((base / "config.json").read_text())
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    model = tokenizer["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    control = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    kind = config["model_type"]
    measures = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": float(config["rope_parameters"]["rope_theta"]),
    }
    if kind == "llama":
        measures |= {"rope.dimension_count": config["head_dim"], "vocab_size": config["vocab_size"]}
    return {
        "general.architecture": kind,
        **{f"{kind}.{key}": value for key, value in measures.items()},
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if i in control else 1 for i in range(len(tokens))],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }


def tensors_of(
    state: Mapping[str, Array],
    *,
    heads: int,
    kv_heads: int,
    kind: str = "Q4_1",
    embedding: str = "Q8_0",
    interleave: bool = True,
) -> dict[str, tuple[str, Sequence[int], bytes]]:
    """A transformers state dict as the tensors of a GGUF file; rows that are no whole blocks stay F32."""
    found = {}
    for name, weight in state.items():
        if interleave and (".q_proj" in name or ".k_proj" in name):
            weight = interleaved(weight, heads if ".q_proj" in name else kv_heads)
        form = embedding if "embed_tokens" in name else kind
        if weight.ndim == 1 or (weight.shape[1] % 32 and form.startswith("Q")):
            form = "F32"
        found[ggml_name(name)] = (form, weight.shape, packed(weight, form))
    return found


def write_gguf(base: Path, path: Path, *, kind: str = "Q4_1", embedding: str = "Q8_0") -> Path:
    """A base folder of transformers as one GGUF file."""
    from safetensors.numpy import load_file

    metadata = metadata_of(base)
    architecture = metadata["general.architecture"]
    tensors = tensors_of(
        load_file(base / "model.safetensors"),
        heads=metadata[f"{architecture}.attention.head_count"],
        kv_heads=metadata[f"{architecture}.attention.head_count_kv"],
        kind=kind,
        embedding=embedding,
        interleave=architecture == "llama",
    )
    path.write_bytes(gguf_bytes(metadata, tensors))
    return path
