"""A BERT-like encoder as an ONNX graph, node by node, so that the precision of each number is chosen here.

A linear layer is one of three: ``float`` (for comparison), ``static`` (activations quantised on a fixed
scale) or ``rows`` (every token on its own scale). ``rows`` is dynamic, yet a token's scale depends on that
token alone: not on the batch, not on padding. Weights are symmetric per output channel in -63..63: with 8-bit
activations, pairs of products then fit the 16-bit sums of AVX2 machines, which saturate silently with full
8-bit weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = [
    "Builder",
    "Graph",
    "Precision",
    "Ranges",
    "Weights",
    "encoder_states",
    "finished",
    "pooled_hidden",
    "quantise_columns",
    "quantise_rows",
    "smoothing",
]

Precision = Literal["float", "static", "rows"]
Weights = Mapping[str, npt.NDArray[np.float32]]
# By linear layer, the largest magnitude that each input channel took on calibration texts, (in,).
Ranges = Mapping[str, npt.NDArray[np.float32]]
Array = npt.NDArray[Any]

CONTRIB = "com.microsoft"  # operators that every onnxruntime build carries
WEIGHT_MAX = 63  # see the module's docstring
EMBEDDING_MAX = 127
HEADS = 12


def quantise_columns(weight: Array, *, most: int = WEIGHT_MAX) -> tuple[Array, Array]:
    """An (in, out) matrix as int8 with one float32 scale per output."""
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-8) / most
    return np.clip(np.round(weight / scale), -most, most).astype(np.int8), scale.astype(np.float32)


def quantise_rows(table: Array) -> tuple[Array, Array]:
    """A (rows, width) table as int8 with one float16 scale per row, (rows, 1)."""
    scale = (np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-4) / EMBEDDING_MAX).astype(np.float16)
    codes = np.round(table / scale.astype(np.float32))
    return np.clip(codes, -EMBEDDING_MAX, EMBEDDING_MAX).astype(np.int8), scale


def smoothing(ranges: Array, weight: Array) -> npt.NDArray[np.float32]:
    """What to divide each input channel by, and multiply its weights with, so that neither side has outliers.

    The geometric mean of both magnitudes, SmoothQuant's alpha = 0.5 (Xiao et al. 2023, equation 4).
    """
    factors = np.sqrt(np.maximum(ranges, 1e-6) / np.maximum(np.abs(weight).max(axis=1), 1e-5))
    result: npt.NDArray[np.float32] = np.maximum(factors / np.exp(np.log(factors).mean()), 0.05)
    return result.astype(np.float32)


@dataclass(slots=True)
class Graph:
    """Nodes and constants as they are added."""

    nodes: list[onnx.NodeProto]
    constants: dict[str, onnx.TensorProto]
    precision: Precision
    ranges: Ranges

    def constant(self, name: str, value: Array) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(value.copy(order="C"), name)
        return name

    def add(self, kind: str, *inputs: str, name: str, domain: str = "", **attributes: Any) -> str:
        self.nodes.append(
            helper.make_node(kind, list(inputs), [name], name=name, domain=domain, **attributes)
        )
        return name

    def integers(self, *values: int) -> str:
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def table(self, name: str, value: Array, ids: str) -> str:
        """Rows of an embedding table: int8 with a scale per row, or float."""
        if self.precision == "float":
            return self.add("Gather", self.constant(name, value), ids, name=f"{name}/rows")
        quantised, scale = quantise_rows(value)
        rows = self.add("Gather", self.constant(f"{name}/int8", quantised), ids, name=f"{name}/rows")
        scales = self.add("Gather", self.constant(f"{name}/scale", scale), ids, name=f"{name}/scales")
        factors = self.add("Cast", scales, name=f"{name}/factors", to=TensorProto.FLOAT)
        whole = self.add("Cast", rows, name=f"{name}/float", to=TensorProto.FLOAT)
        return self.add("Mul", whole, factors, name=f"{name}/value")

    def linear(self, name: str, x: str, weight: Array) -> str:
        """``x @ weight`` without its bias, in the graph's precision; weight is (in, out)."""
        if self.precision == "float":
            return self.add("MatMul", x, self.constant(f"{name}/weight", weight), name=f"{name}/product")
        zero = self.constant("activation_zero", np.array(128, np.uint8))
        if self.precision == "static":
            scale = self.constant(
                f"{name}/activation_scale", np.array(self.ranges[name].max() / 127, np.float32)
            )
            codes = self.add("QuantizeLinear", x, scale, zero, name=f"{name}/codes")
            return self._integer_product(name, codes, scale, weight)
        one = self.constant("one", np.array(1, np.float32))
        if name in self.ranges:
            smooth = smoothing(self.ranges[name], weight)
            x = self.add("Mul", x, self.constant(f"{name}/smooth", 1 / smooth), name=f"{name}/smoothed")
            weight = weight * smooth[:, None]
        codes, scales = self._row_codes(x, one, zero)
        product = self._integer_product(name, codes, one, weight)
        return self.add("Mul", product, scales, name=f"{name}/product")

    def _row_codes(self, x: str, one: str, zero: str) -> tuple[str, str]:
        """8-bit codes of x with one scale per token, computed once for all layers that read x."""
        if f"{x}/codes" not in {node.name for node in self.nodes}:
            top = self.add(
                "ReduceMax", self.add("Abs", x, name=f"{x}/abs"), name=f"{x}/top", axes=[-1], keepdims=1
            )
            safe = self.add("Max", top, self.constant("tiny", np.array(1e-8, np.float32)), name=f"{x}/safe")
            self.add("Div", safe, self.constant("levels", np.array(127, np.float32)), name=f"{x}/scales")
            scaled = self.add("Div", x, f"{x}/scales", name=f"{x}/scaled")
            self.add("QuantizeLinear", scaled, one, zero, name=f"{x}/codes")
        return f"{x}/codes", f"{x}/scales"

    def _integer_product(self, name: str, codes: str, scale: str, weight: Array) -> str:
        quantised, columns = quantise_columns(weight)
        inputs = (
            codes,
            self.constant(f"{name}/int8", quantised),
            scale,
            self.constant(f"{name}/scale", columns),
            "activation_zero",
        )
        return self.add("MatMulIntegerToFloat", *inputs, name=f"{name}/float", domain=CONTRIB)

    def small_linear(self, name: str, x: str, weights: Weights, key: str) -> str:
        """A layer of the heads: float arithmetic; weights stored as int8 where the graph is quantised."""
        weight = weights[f"{key}.weight"].T
        if self.precision == "float" or weight.size < 4096:
            stored = self.constant(f"{name}/weight", weight)
        else:
            quantised, scale = quantise_columns(weight, most=EMBEDDING_MAX)
            cast = self.add(
                "Cast", self.constant(f"{name}/int8", quantised), name=f"{name}/cast", to=TensorProto.FLOAT
            )
            stored = self.add("Mul", cast, self.constant(f"{name}/scale", scale), name=f"{name}/weight")
        product = self.add("MatMul", x, stored, name=f"{name}/product")
        return self.add(
            "Add", product, self.constant(f"{name}/bias", weights[f"{key}.bias"]), name=f"{name}/out"
        )


class Builder(Protocol):
    """Makes the model of a network's weights in one precision."""

    def __call__(
        self, weights: Weights, *, precision: Precision, ranges: Ranges | None = None
    ) -> onnx.ModelProto: ...


def finished(
    graph: Graph, *, name: str, ids: str | None = None, shapes: Mapping[str, Sequence[str | int]]
) -> onnx.ModelProto:
    """The graph as a model; ``ids`` is its third input, if any, ``shapes`` are those of its outputs."""
    inputs = [
        helper.make_tensor_value_info(each, TensorProto.INT64, ["batch", "time"])
        for each in ("input_ids", "attention_mask", *([] if ids is None else [ids]))
    ]
    outputs = [
        helper.make_tensor_value_info(each, TensorProto.FLOAT, list(shape)) for each, shape in shapes.items()
    ]
    proto = helper.make_graph(graph.nodes, name, inputs, outputs, list(graph.constants.values()))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=8, producer_name="guardrail-train")


def encoder_states(
    graph: Graph, weights: Weights, *, added: str | None = None, ids: str = ""
) -> tuple[str, str]:
    """The encoder's last states, (batch, time, width), and the mask as floats, (batch, time, 1).

    The rows of the table ``added`` that the input ``ids`` names are added to the tokens' embeddings, if there
    is such a table.
    """
    bias, real = _masks(graph)
    x = _embeddings(graph, weights, added=added, ids=ids)
    layers = 1 + max(int(key.split(".")[3]) for key in weights if key.startswith("encoder.encoder.layer."))
    for number in range(layers):
        x = _layer(graph, weights, x, bias, number)
    return x, real


def _masks(graph: Graph) -> tuple[str, str]:
    """What is added to attention scores, (batch, 1, 1, time), and the mask as floats, (batch, time, 1)."""
    mask = graph.add("Cast", "attention_mask", name="mask", to=TensorProto.FLOAT)
    real = graph.add("Unsqueeze", mask, graph.integers(2), name="real")
    absent = graph.add("Sub", mask, graph.constant("one", np.array(1, np.float32)), name="absent")
    far = graph.add("Mul", absent, graph.constant("far", np.array(1e9, np.float32)), name="absent_far")
    return graph.add("Unsqueeze", far, graph.integers(1, 2), name="score_bias"), real


def _embeddings(graph: Graph, weights: Weights, *, added: str | None, ids: str) -> str:
    prefix = "encoder.embeddings."
    words = graph.table("words", weights[f"{prefix}word_embeddings.weight"], "input_ids")
    shape = graph.add("Shape", "input_ids", name="shape")
    time = graph.add("Gather", shape, graph.constant("axis_time", np.array(1, np.int64)), name="time")
    zero, one = (graph.constant(f"int_{value}", np.array(value, np.int64)) for value in (0, 1))
    places = graph.add("Range", zero, time, one, name="places")
    # Every token is of type 0, so its type vector is part of the position table.
    positions = (
        weights[f"{prefix}position_embeddings.weight"] + weights[f"{prefix}token_type_embeddings.weight"][0]
    )
    together = words
    if added is not None:
        table = graph.constant(added, weights[f"{added}.weight"])
        rows = graph.add("Gather", table, ids, name=f"{added}/rows")
        together = graph.add("Add", words, rows, name="words/together")
    return _normalise(
        graph,
        weights,
        f"{prefix}LayerNorm",
        together,
        graph.table("positions", positions, places),
        "embedded",
    )


def _normalise(
    graph: Graph, weights: Weights, key: str, x: str, skip: str, name: str, bias: str | None = None
) -> str:
    total = graph.add("Add", x, skip, name=f"{name}/sum")
    if bias is not None:
        total = graph.add("Add", total, bias, name=f"{name}/biased")
    scale, shift = (graph.constant(f"{name}/{part}", weights[f"{key}.{part}"]) for part in ("weight", "bias"))
    return graph.add("LayerNormalization", total, scale, shift, name=name, axis=-1, epsilon=1e-12)


def _layer(graph: Graph, weights: Weights, x: str, score_bias: str, number: int) -> str:
    prefix, name = f"encoder.encoder.layer.{number}.", f"layer{number}"
    attended = _attention(graph, weights, x, score_bias, prefix, name)
    mixed = graph.linear(f"{name}/mix", attended, weights[f"{prefix}attention.output.dense.weight"].T)
    bias = graph.constant(f"{name}/mix/bias", weights[f"{prefix}attention.output.dense.bias"])
    x = _normalise(graph, weights, f"{prefix}attention.output.LayerNorm", mixed, x, f"{name}/attended", bias)
    wide = graph.linear(f"{name}/wide", x, weights[f"{prefix}intermediate.dense.weight"].T)
    bias = graph.constant(f"{name}/wide/bias", weights[f"{prefix}intermediate.dense.bias"])
    active = graph.add("BiasGelu", wide, bias, name=f"{name}/active", domain=CONTRIB)
    narrow = graph.linear(f"{name}/narrow", active, weights[f"{prefix}output.dense.weight"].T)
    bias = graph.constant(f"{name}/narrow/bias", weights[f"{prefix}output.dense.bias"])
    return _normalise(graph, weights, f"{prefix}output.LayerNorm", narrow, x, f"{name}/out", bias)


def _attention(graph: Graph, weights: Weights, x: str, score_bias: str, prefix: str, name: str) -> str:
    """Self-attention; queries, keys and values in one product, the 1/sqrt(width) folded into the queries."""
    parts = {part: f"{prefix}attention.self.{part}" for part in ("query", "key", "value")}
    width = weights[f"{parts['query']}.weight"].shape[0]
    head = width // HEADS
    shrink = {"query": head**-0.5, "key": 1.0, "value": 1.0}
    weight = np.concatenate(
        [weights[f"{key}.weight"].T * np.float32(shrink[part]) for part, key in parts.items()], 1
    )
    bias = np.concatenate([weights[f"{key}.bias"] * np.float32(shrink[part]) for part, key in parts.items()])
    product = graph.linear(f"{name}/qkv", x, weight)
    biased = graph.add("Add", product, graph.constant(f"{name}/qkv/bias", bias), name=f"{name}/qkv/out")
    split = graph.add("Reshape", biased, graph.integers(0, 0, 3, HEADS, head), name=f"{name}/split")
    apart = graph.add(
        "Transpose", split, name=f"{name}/apart", perm=[2, 0, 3, 1, 4]
    )  # (3, batch, heads, time, head)
    query, key, value = (
        graph.add(
            "Gather",
            apart,
            graph.constant(f"int_{place}", np.array(place, np.int64)),
            name=f"{name}/{part}",
            axis=0,
        )
        for place, part in enumerate(parts)
    )
    scores = graph.add("FusedMatMul", query, key, name=f"{name}/scores", domain=CONTRIB, transB=1)
    shares = graph.add(
        "Softmax", graph.add("Add", scores, score_bias, name=f"{name}/masked"), name=f"{name}/shares", axis=-1
    )
    context = graph.add("MatMul", shares, value, name=f"{name}/context")
    joined = graph.add("Transpose", context, name=f"{name}/joined", perm=[0, 2, 1, 3])
    return graph.add("Reshape", joined, graph.integers(0, 0, width), name=f"{name}/heads")


def pooled_hidden(graph: Graph, weights: Weights, x: str, real: str) -> str:
    """The classifier's hidden layer over the first state, attended mean and maximum of the real tokens."""
    far = graph.add(
        "Mul", graph.add("Sub", real, "one", name="padding"), "far", name="padding_far"
    )  # (batch, time, 1)
    first = graph.add("Gather", x, graph.constant("int_0", np.array(0, np.int64)), name="first", axis=1)
    scores = graph.add(
        "Add", graph.small_linear("attention", x, weights, "attention"), far, name="attention/masked"
    )
    shares = graph.add("Softmax", scores, name="attention/shares", axis=1)
    weighted = graph.add(
        "ReduceSum",
        graph.add("Mul", x, shares, name="attention/weighted"),
        graph.integers(1),
        name="attended_mean",
        keepdims=0,
    )
    top = graph.add(
        "ReduceMax", graph.add("Add", x, far, name="top/masked"), name="top", axes=[1], keepdims=0
    )
    pooled = graph.add("Concat", first, weighted, top, name="pooled", axis=-1)
    return graph.add(
        "Gelu", graph.small_linear("hidden", pooled, weights, "hidden"), name="hidden/active", domain=CONTRIB
    )
