"""The detector's network as an ONNX graph: the encoder and its three outputs."""

from __future__ import annotations

import onnx

from guardrail.outcome import LABELS
from research.detection.onnx_graph import (
    Graph,
    Precision,
    Ranges,
    Weights,
    encoder_states,
    finished,
    pooled_hidden,
)

__all__ = ["build"]


def build(weights: Weights, *, precision: Precision, ranges: Ranges | None = None) -> onnx.ModelProto:
    """The detector: ``input_ids``, ``attention_mask``, ``case_ids`` (batch, time), int64, to its outputs.

    ``weights`` is the network's state dict as numpy arrays. ``static`` takes its scales from ``ranges``,
    ``rows`` smooths with them if they are given: constants both, so no text depends on another.
    """
    graph = Graph([], {}, precision, ranges or {})
    x, real = encoder_states(graph, weights, added="case", ids="case_ids")
    _outputs(graph, weights, x, real)
    width = weights["tokens.weight"].shape[1]
    shapes: dict[str, list[str | int]] = {
        "logits": ["batch", len(LABELS)],
        "embedding": ["batch", width],
        "token_logits": ["batch", "time"],
    }
    return finished(graph, name="detector", ids="case_ids", shapes=shapes)


def _outputs(graph: Graph, weights: Weights, x: str, real: str) -> None:
    """The three outputs from the last states, pooled over real tokens only."""
    hidden = pooled_hidden(graph, weights, x, real)
    # What training learned alongside the labels of a verdict stays out of the file.
    served = {part: weights[f"labels.{part}"][: len(LABELS)] for part in ("weight", "bias")}
    served = {f"labels.{part}": value for part, value in served.items()}
    graph.add("Identity", graph.small_linear("classifier", hidden, served, "labels"), name="logits")
    tokens = graph.small_linear("tokens", x, weights, "tokens")
    graph.add("Squeeze", tokens, graph.integers(2), name="token_logits")
    total = graph.add(
        "ReduceSum",
        graph.add("Mul", x, real, name="mean/real"),
        graph.integers(1),
        name="mean/sum",
        keepdims=0,
    )
    graph.add("LpNormalization", total, name="embedding", axis=-1, p=2)
