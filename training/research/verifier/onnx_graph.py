"""The verifier's network as an ONNX graph."""

from __future__ import annotations

import onnx

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
    """The model: ``input_ids``, ``attention_mask``, ``kind_ids`` (batch, time), int64, to ``logits``.

    What is wrong with a candidate is learned beside and stays out of the file.
    """
    graph = Graph([], {}, precision, ranges or {})
    x, real = encoder_states(graph, weights, added="kind", ids="kind_ids")
    hidden = pooled_hidden(graph, weights, x, real)
    served = {f"labels.{part}": weights[f"labels.{part}"][:1] for part in ("weight", "bias")}
    graph.add("Identity", graph.small_linear("classifier", hidden, served, "labels"), name="logits")
    return finished(graph, name="verifier", ids="kind_ids", shapes={"logits": ["batch", 1]})
