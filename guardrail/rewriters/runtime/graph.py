"""A Llama as an ONNX graph of onnxruntime's fused operators, without its weights.

One pass reads new tokens behind a cache of earlier ones. Tokens are slots of one row: a bias says which
earlier slots each of them sees, positions say where in its own text it stands, so a pass may hold a tree, or
several. Of the tokens that are picked it gives the logits and the likeliest ids.

A linear layer adds the low-rank matrices of an adapter, which are inputs (LoRA,
https://arxiv.org/abs/2106.09685, section 4.1). Layers that read the same state are one product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.models.weights import Blocks, LlamaShape, Weights
from guardrail.rewriters.runtime.protobuf import GraphWriter

__all__ = ["GROUPS", "Graph", "factor_names", "write_graph"]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Linear layers that read the same state, by the name of their product."""
_FUSED = "com.microsoft"

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """What a session is made of: the model as bytes, and the arrays it names without holding them."""

    content: bytes
    arrays: Mapping[str, Array]


def factor_names(layer: int, group: str) -> tuple[str, str]:
    """The inputs that take an adapter's two matrices for one product: (inputs, r) and (r, outputs)."""
    return f"layers.{layer}.{group}.factor_a", f"layers.{layer}.{group}.factor_b"


def write_graph(weights: Weights, *, positions: int) -> Graph:
    """The graph of these weights for texts of up to so many positions."""
    return _Llama(weights, positions=positions).graph()


class _Llama:
    """Writes one graph, node by node. Shapes: S new tokens, T slots in use, C slots in all, P picked."""

    def __init__(self, weights: Weights, *, positions: int) -> None:
        self._weights = weights
        self._shape = weights.shape
        self._positions = positions
        self._writer = GraphWriter("llama")
        self._arrays: dict[str, Array] = {}

    def graph(self) -> Graph:
        shape, writer = self._shape, self._writer
        skip = writer.input("embedded", "float32", ["S", shape.width])
        writer.input("positions", "int64", [1, "S"])
        writer.input("bias", "float32", [1, 1, "S", "T"])
        writer.input("last_slot", "int32", [1])
        writer.input("slots", "int32", [])
        writer.input("picked", "int64", ["P"])
        writer.input("likeliest", "int64", [1])
        for name, table in zip(("cosines", "sines"), _rotation(shape, self._positions), strict=True):
            self._weight(name, table)
        writer.constant("row", np.array([0], dtype=np.int64))
        writer.constant("halves", np.array([shape.mlp, shape.mlp], dtype=np.int64))
        state = writer.node(
            "SimplifiedLayerNormalization",
            [skip, self._norm("model.layers.0.input_layernorm")],
            ["state"],
            axis=-1,
            epsilon=shape.epsilon,
        )
        for layer in range(shape.layers):
            state, skip = self._layer(layer, state, skip)
        self._head(state)
        return Graph(writer.serialized(), self._arrays)

    def _layer(self, layer: int, state: str, skip: str) -> tuple[str, str]:
        """The normalised state for the next layer, and the sum it comes from."""
        shape = self._shape
        attended = self._attention(layer, self._linear(layer, "qkv", state))
        state, skip = self._normalised(
            self._linear(layer, "out", attended), skip, f"model.layers.{layer}.post_attention_layernorm"
        )
        both = self._linear(layer, "gate_up", state)
        writer, name = self._writer, f"layers.{layer}"
        writer.node("Split", [both, "halves"], [f"{name}.gate", f"{name}.up"], axis=-1)
        writer.node("QuickGelu", [f"{name}.gate"], [f"{name}.silu"], domain=_FUSED, alpha=1.0)
        gated = writer.node("Mul", [f"{name}.silu", f"{name}.up"], [f"{name}.gated"])
        following = f"model.layers.{layer + 1}.input_layernorm" if layer + 1 < shape.layers else "model.norm"
        return self._normalised(self._linear(layer, "down", gated), skip, following)

    def _attention(self, layer: int, qkv: str) -> str:
        shape, writer, name = self._shape, self._writer, f"layers.{layer}"
        cache = [1, shape.kv_heads, "C", shape.head_size]
        for side in ("keys", "values"):
            writer.input(f"{name}.{side}.past", "float32", cache)
        row = writer.node("Unsqueeze", [qkv, "row"], [f"{name}.row"])
        writer.node(
            "GroupQueryAttention",
            [row, "", "", f"{name}.keys.past", f"{name}.values.past", "last_slot", "slots"]
            + ["cosines", "sines", "positions", "bias"],
            [f"{name}.attended_row", f"{name}.keys.present", f"{name}.values.present"],
            domain=_FUSED,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            do_rotary=1,
        )
        for side in ("keys", "values"):
            writer.output(f"{name}.{side}.present", "float32", cache)
        return writer.node("Squeeze", [f"{name}.attended_row", "row"], [f"{name}.attended"])

    def _normalised(self, added: str, skip: str, norm: str) -> tuple[str, str]:
        outputs = [f"{norm}.state", "", "", f"{norm}.skip"]
        self._writer.node(
            "SkipSimplifiedLayerNormalization",
            [added, skip, self._norm(norm)],
            outputs,
            domain=_FUSED,
            epsilon=self._shape.epsilon,
        )
        return outputs[0], outputs[3]

    def _linear(self, layer: int, group: str, state: str) -> str:
        """The product of one group of layers with what the adapter adds to it."""
        writer, name = self._writer, f"layers.{layer}.{group}"
        matrix = np.concatenate(
            [_floats(self._tensor(f"model.layers.{layer}.{part}")) for part in GROUPS[group]]
        )
        inputs, outputs = matrix.shape[1], matrix.shape[0]
        product = writer.node(
            "MatMul", [state, self._weight(f"{name}.weight", matrix.T)], [f"{name}.product"]
        )
        down, up = factor_names(layer, group)
        writer.input(down, "float32", [inputs, f"{name}.rank"])
        writer.input(up, "float32", [f"{name}.rank", outputs])
        inner = writer.node("MatMul", [state, down], [f"{name}.inner"])
        return writer.node("Gemm", [inner, up, product], [f"{name}.sum"])

    def _head(self, state: str) -> None:
        writer, shape = self._writer, self._shape
        name = "model.embed_tokens" if shape.tied else "lm_head"
        picked = writer.node("Gather", [state, "picked"], ["picked_state"], axis=0)
        writer.node("MatMul", [picked, self._weight("head", _floats(self._tensor(name)).T)], ["logits"])
        writer.node("TopK", ["logits", "likeliest"], ["top_logits", "top_ids"], axis=-1)
        writer.output("logits", "float32", ["P", shape.vocabulary])
        writer.output("top_logits", "float32", ["P", "K"])
        writer.output("top_ids", "int64", ["P", "K"])

    def _tensor(self, name: str) -> Array | Blocks:
        return self._weights.tensors[f"{name}.weight"]

    def _norm(self, name: str) -> str:
        return self._weight(f"{name}.weight", _floats(self._tensor(name)))

    def _weight(self, name: str, array: Array) -> str:
        if name not in self._arrays:
            self._arrays[name] = np.ascontiguousarray(array)
            self._writer.weight(name, self._arrays[name])
        return name


def _floats(matrix: Array | Blocks) -> Array:
    return matrix.dequantised() if isinstance(matrix, Blocks) else matrix


def _rotation(shape: LlamaShape, positions: int) -> tuple[Array, Array]:
    """Cosines and sines of the rotary embedding, each (positions, head size / 2).

    RoFormer, https://arxiv.org/abs/2104.09864, section 3.4.2; in float32 as transformers computes them.
    """
    steps = np.arange(0, shape.head_size, 2, dtype=np.float32) / np.float32(shape.head_size)
    frequencies = np.float32(1.0) / np.float32(shape.rope_theta) ** steps
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)
