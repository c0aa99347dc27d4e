"""A Llama, or a Qwen2, as an ONNX graph of onnxruntime's fused operators, without its weights.

One pass reads new tokens behind a cache of earlier ones. Tokens are slots of one row: a bias says which
earlier slots each of them sees, positions say where in its own text it stands, so a pass may hold a tree, or
several. Of the tokens that are picked it gives the logits and the likeliest ids.

A linear layer adds the low-rank matrices of an adapter, which are inputs (LoRA,
https://arxiv.org/abs/2106.09685, section 4.1). Layers that read the same state are one product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from guardrail.models.blocks import Matrix, as_floats
from guardrail.models.weights import LlamaShape, OtherModelError, Weights, expected_shapes
from guardrail.rewriters.runtime.protobuf import GraphWriter

__all__ = ["GROUPS", "SessionGraph", "factor_names", "rotation", "write_graph"]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""Linear layers that read the same state, by the name of their product."""
_FUSED = "com.microsoft"
HEAD_STEP = 16
ROWS_AT_ONCE = 2048
PLACES = np.array([1 << 14, 1 << 7, 1], dtype=np.float32)
ZERO_POINT = 64
LARGEST = 1_040_000
"""Its first digit is 63, with some room for rounding."""

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SessionGraph:
    """What a session is made of: the model as bytes, and the arrays it names without holding them.

    ``packed`` are the arrays that onnxruntime may bring into an order of its own when it opens the model.
    """

    content: bytes
    arrays: Mapping[str, Array]
    packed: Mapping[str, Array]


def factor_names(layer: int, group: str) -> tuple[str, str]:
    """The inputs that take an adapter's two matrices for one product: (inputs, r) and (r, outputs)."""
    return f"layers.{layer}.{group}.factor_a", f"layers.{layer}.{group}.factor_b"


Precision = Literal["float32", "int8"]


def write_graph(weights: Weights, *, precision: Precision) -> SessionGraph:
    """The graph of these weights.

    In ``int8`` weights are rounded to 8 bits, one scale for each output. What they are multiplied with is
    not: a state is written in three digits of 7 bits, so that the products are exact integers.
    """
    if weights.shape.head_size % HEAD_STEP:
        raise OtherModelError(
            f"heads of size {weights.shape.head_size} are not a multiple of {HEAD_STEP}, which onnxruntime's "
            "attention needs; guardrail.rewriters.lora.LoraRewriter (extra 'torch') runs this model"
        )
    return _Llama(weights, precision=precision).graph()


class _Llama:
    """Writes one graph, node by node. Shapes: S new tokens, T slots in use, C slots in all, P picked."""

    def __init__(self, weights: Weights, *, precision: Precision) -> None:
        self._weights = weights
        self._shape = weights.shape
        self._precision = precision
        self._writer = GraphWriter("llama")
        self._arrays: dict[str, Array] = {}
        self._packed: dict[str, Array] = {}
        # One block for all, which goes back to the system when it is freed; small ones might not.
        kind = np.int8 if precision == "int8" else np.float32
        self._room = np.empty(sum(math.prod(size) for size in _matrices(weights)), dtype=kind)

    def graph(self) -> SessionGraph:
        shape, writer = self._shape, self._writer
        skip = writer.input("embedded", "float32", ["S", shape.width])
        writer.input("positions", "int64", [1, "S"])
        writer.input("bias", "float32", [1, 1, "S", "T"])
        writer.input("last_slot", "int32", [1])
        writer.input("slots", "int32", [])
        writer.input("picked", "int64", ["P"])
        writer.input("likeliest", "int64", [1])
        for name in ("cosines", "sines"):
            writer.input(name, "float32", ["R", shape.head_size // 2])
        writer.constant("row", np.array([0], dtype=np.int64))
        writer.constant("halves", np.array([shape.mlp, shape.mlp], dtype=np.int64))
        if self._precision == "int8":
            self._digit_constants()
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
        return SessionGraph(writer.serialized(), self._arrays, self._packed)

    def _layer(self, layer: int, state: str, skip: str) -> tuple[str, str]:
        """The normalised state for the next layer, and the sum it comes from."""
        shape = self._shape
        attended = self._attention(
            layer, self._linear(layer, "qkv", state, norm=f"model.layers.{layer}.input_layernorm")
        )
        norm = f"model.layers.{layer}.post_attention_layernorm"
        state, skip = self._normalised(self._linear(layer, "out", attended), skip, norm)
        both = self._linear(layer, "gate_up", state, norm=norm)
        writer, name = self._writer, f"layers.{layer}"
        writer.node("Split", [both, "halves"], [f"{name}.gate", f"{name}.up"], axis=-1)
        writer.node("QuickGelu", [f"{name}.gate"], [f"{name}.silu"], domain=_FUSED, alpha=1.0)
        gated = writer.node("Mul", [f"{name}.silu", f"{name}.up"], [f"{name}.gated"])
        following = f"model.layers.{layer + 1}.input_layernorm" if layer + 1 < shape.layers else "model.norm"
        return self._normalised(self._linear(layer, "down", gated), skip, following)

    def _attention(self, layer: int, qkv: str) -> str:
        shape, writer, name = self._shape, self._writer, f"layers.{layer}"
        cache: list[int | str] = [1, shape.kv_heads, "C", shape.head_size]
        past = [writer.input(f"{name}.{side}.past", "float32", cache) for side in ("keys", "values")]
        row = writer.node("Unsqueeze", [qkv, "row"], [f"{name}.row"])
        writer.node(
            "GroupQueryAttention",
            [row, "", "", *past, "last_slot", "slots", "cosines", "sines", "positions", "bias"],
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

    def _linear(self, layer: int, group: str, state: str, *, norm: str | None = None) -> str:
        """The product of one group of layers with what the adapter adds to it."""
        writer, name = self._writer, f"layers.{layer}.{group}"
        parts = [self._tensor(f"model.layers.{layer}.{part}") for part in GROUPS[group]]
        outputs, inputs = sum(part.shape[0] for part in parts), parts[0].shape[1]
        product = self._product(name, state, parts, norm=norm)
        if self._shape.biased and group == "qkv":
            product = writer.node("Add", [product, self._bias(layer, group)], [f"{name}.biased"])
        first, second = factor_names(layer, group)
        writer.input(first, "float32", [inputs, f"{name}.rank"])
        writer.input(second, "float32", [f"{name}.rank", outputs])
        inner = writer.node("MatMul", [state, first], [f"{name}.inner"])
        return writer.node("Gemm", [inner, second, product], [f"{name}.sum"])

    def _bias(self, layer: int, group: str) -> str:
        names = [f"model.layers.{layer}.{part}.bias" for part in GROUPS[group]]
        parts = [as_floats(self._weights.tensors[name]) for name in names]
        return self._weight(f"layers.{layer}.{group}.bias", np.concatenate(parts))

    def _head(self, state: str) -> None:
        writer, shape = self._writer, self._shape
        matrix = self._tensor("model.embed_tokens" if shape.tied else "lm_head")
        picked = writer.node("Gather", [state, "picked"], ["picked_state"], axis=0)
        logits = self._product("head", picked, [matrix], norm="model.norm")
        writer.node("TopK", [logits, "likeliest"], ["top_logits", "top_ids"], axis=-1)
        writer.output(logits, "float32", ["P", shape.vocabulary])
        writer.output("top_logits", "float32", ["P", "K"])
        writer.output("top_ids", "int64", ["P", "K"])

    def _product(self, name: str, state: str, parts: Sequence[Matrix], *, norm: str | None) -> str:
        """State times matrices, side by side; ``norm`` names what normalised the state, if anything did."""
        if self._precision == "int8":
            return self._integer_product(name, state, parts, norm=norm)
        weight = self._matrix_weight(f"{name}.weight", parts, lambda rows: rows)
        return self._writer.node("MatMul", [state, weight], [f"{name}.product"])

    def _matrix_weight(self, name: str, parts: Sequence[Matrix], rounded: Callable[[Floats], Array]) -> str:
        """The weight (inputs, outputs) of a product, put together some rows at a time."""
        inputs, outputs = parts[0].shape[1], sum(part.shape[0] for part in parts)
        place, self._room = np.split(self._room, [inputs * outputs])
        target = place.reshape(inputs, outputs)
        done = 0
        for rows in _pieces(parts):
            target[:, done : done + len(rows)] = rounded(rows).T
            done += len(rows)
        self._packed[name] = self._arrays[name] = target
        return self._writer.weight(name, target)

    def _digit_constants(self) -> None:
        writer = self._writer
        writer.constant("largest", np.array(LARGEST, dtype=np.float32))
        writer.constant("tiny", np.array(1e-30, dtype=np.float32))
        writer.constant("places", PLACES[None])
        for place, step in enumerate(PLACES):
            writer.constant(f"place.{place}", step)
        writer.constant("by_place", np.array([3, -1], dtype=np.int64))
        writer.constant("one", np.array(1, dtype=np.float32))
        writer.constant("zero_point", np.array(ZERO_POINT, dtype=np.uint8))
        writer.constant("last_axis", np.array([-1], dtype=np.int64))

    def _digits(self, name: str, rest: str) -> str:
        """Whole numbers from -LARGEST to LARGEST in digits from -64 to 64, the zero point added: all first
        digits, then all second ones, then all third ones.
        """
        writer = self._writer
        digits: list[str] = []
        for place in range(len(PLACES)):
            if place:
                known = writer.node(
                    "DequantizeLinear",
                    [digits[-1], f"place.{place - 1}", "zero_point"],
                    [f"{name}.known.{place}"],
                )
                rest = writer.node("Sub", [rest, known], [f"{name}.rest.{place}"])  # without rounding
            digits.append(
                writer.node(
                    "QuantizeLinear", [rest, f"place.{place}", "zero_point"], [f"{name}.digit.{place}"]
                )
            )
        return writer.node("Concat", digits, [f"{name}.digits"], axis=0)  # (3 S, inputs)

    def _integer_product(self, name: str, state: str, parts: Sequence[Matrix], *, norm: str | None) -> str:
        writer = self._writer
        gain = np.ones(parts[0].shape[1], dtype=np.float32)
        outputs = sum(part.shape[0] for part in parts)
        if norm is None:
            magnitude = writer.node("Abs", [state], [f"{name}.magnitude"])
            largest = writer.node("ReduceMax", [magnitude, "last_axis"], [f"{name}.largest"], keepdims=1)
            largest = writer.node("Max", [largest, "tiny"], [f"{name}.bound"])
            scale = writer.node("Div", ["largest", largest], [f"{name}.scale"])  # (S, 1)
            places = "places"
        else:
            # Before its weights a normalised state has a mean square of 1 at most: no entry exceeds the root
            # of their number.
            gain = as_floats(self._tensor(norm))
            step = np.float32(LARGEST / math.sqrt(len(gain)))
            inverse = np.divide(step, gain, out=np.zeros_like(gain), where=gain != 0)
            scale = self._weight(f"{name}.scale", inverse)
            places = self._weight(f"{name}.places", PLACES[None] / step)
        steps: list[Floats] = []

        def rounded(rows: Floats) -> Array:
            rows = rows * gain
            step = np.maximum(np.abs(rows).max(axis=1), np.float32(1e-30)) / np.float32(127)
            steps.append(step)
            whole: Floats = np.rint(rows / step[:, None])
            return whole

        weight = self._matrix_weight(f"{name}.weight", parts, rounded)
        steps_name = self._weight(f"{name}.steps", np.concatenate(steps))
        scaled = writer.node("Mul", [state, scale], [f"{name}.scaled"])
        digits = self._digits(name, scaled)
        products = writer.node(
            "MatMulIntegerToFloat",
            [digits, weight, "one", steps_name, "zero_point"],
            [f"{name}.products"],
            domain=_FUSED,
        )
        writer.constant(f"{name}.size", np.array([-1, outputs], dtype=np.int64))
        by_place = writer.node("Reshape", [products, "by_place"], [f"{name}.by_place"])
        placed = writer.node("MatMul", [places, by_place], [f"{name}.placed"])
        if norm is not None:
            return writer.node("Reshape", [placed, f"{name}.size"], [f"{name}.product"])
        summed = writer.node("Reshape", [placed, f"{name}.size"], [f"{name}.summed"])
        return writer.node("Div", [summed, scale], [f"{name}.product"])

    def _tensor(self, name: str) -> Matrix:
        return self._weights.tensors[f"{name}.weight"]

    def _norm(self, name: str) -> str:
        return self._weight(f"{name}.weight", as_floats(self._tensor(name)))

    def _weight(self, name: str, array: Array) -> str:
        if name not in self._arrays:
            self._arrays[name] = np.ascontiguousarray(array)
            self._writer.weight(name, self._arrays[name])
        return name


def _matrices(weights: Weights) -> Iterator[tuple[int, ...]]:
    """The shapes of all matrices that states are multiplied with."""
    expected = expected_shapes(weights.shape)
    head = "model.embed_tokens.weight" if weights.shape.tied else "lm_head.weight"
    for name, size in expected.items():
        if name == head or (name.startswith("model.layers.") and len(size) == 2):
            yield size


def _pieces(parts: Sequence[Matrix]) -> Iterator[Floats]:
    """The rows of matrices in float32, a few thousand at a time."""
    for part in parts:
        for start in range(0, part.shape[0], ROWS_AT_ONCE):
            yield as_floats(part[start : start + ROWS_AT_ONCE])


def rotation(shape: LlamaShape, positions: int) -> tuple[Floats, Floats]:
    """Cosines and sines of the rotary embedding, the graph's inputs, each (positions, head size / 2).

    RoFormer, https://arxiv.org/abs/2104.09864, section 3.4.2; in float32 as transformers computes them.
    """
    steps = np.arange(0, shape.head_size, 2, dtype=np.float32) / np.float32(shape.head_size)
    frequencies = np.float32(1.0) / np.float32(shape.rope_theta) ** steps
    angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies
    return np.cos(angles), np.sin(angles)
