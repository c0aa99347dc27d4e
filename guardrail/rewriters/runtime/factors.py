"""An adapter's matrices as the graph takes them: one pair for each product."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from guardrail.errors import ModelFileError
from guardrail.models.weights import LlamaShape, expected_shapes
from guardrail.rewriters.adapter import Adapter
from guardrail.rewriters.runtime.graph import GROUPS, factor_names

__all__ = ["factors_of"]

Floats = npt.NDArray[np.float32]


def factors_of(adapter: Adapter, shape: LlamaShape) -> Mapping[str, Floats]:
    """The adapter's matrices by the names of the graph's inputs, its scale in the second of each pair.

    Layers of one product stand side by side: (inputs, sum of ranks) and (sum of ranks, sum of outputs).
    Raises ModelFileError if the adapter does not fit a base of this shape.
    """
    expected = expected_shapes(shape)
    for name, layer in adapter.layers.items():
        _check_fit(name, (layer.up.shape[0], layer.down.shape[1]), expected)
    factors: dict[str, Floats] = {}
    for number in range(shape.layers):
        for group, parts in GROUPS.items():
            names = [f"model.layers.{number}.{part}" for part in parts]
            pair = _side_by_side(adapter, [(name, expected[f"{name}.weight"]) for name in names])
            factors.update(zip(factor_names(number, group), pair, strict=True))
    return factors


def _check_fit(name: str, size: tuple[int, ...], expected: Mapping[str, tuple[int, ...]]) -> None:
    weight = f"{name}.weight"
    if name == "lm_head":
        if weight not in expected:
            raise ModelFileError(
                f"the adapter changes {name!r}, whose weight the base shares with another layer"
            )
        raise ModelFileError(
            f"the adapter changes {name!r}: load it with guardrail.rewriters.lora.LoraRewriter"
        )
    if weight not in expected:
        raise ModelFileError(f"the adapter changes {name!r}, which the base does not have")
    if len(expected[weight]) != 2 or name == "model.embed_tokens":
        raise ModelFileError(f"the adapter changes {name!r}, which is not a linear layer of the base")
    if size != expected[weight]:
        raise ModelFileError(f"the adapter's {name!r} is {size}, the base's {expected[weight]}")


def _side_by_side(adapter: Adapter, layers: list[tuple[str, tuple[int, ...]]]) -> tuple[Floats, Floats]:
    ranks = [len(adapter.layers[name].down) if name in adapter.layers else 0 for name, _ in layers]
    outputs = [size[0] for _, size in layers]
    rank = max(sum(ranks), 1)  # a product that the adapter leaves alone adds zeros
    first = np.zeros((layers[0][1][1], rank), dtype=np.float32)
    second = np.zeros((rank, sum(outputs)), dtype=np.float32)
    at_rank = at_output = 0
    for (name, _), own_rank, own_outputs in zip(layers, ranks, outputs, strict=True):
        if own_rank:
            layer = adapter.layers[name]
            first[:, at_rank : at_rank + own_rank] = layer.down.T
            block = second[at_rank : at_rank + own_rank, at_output : at_output + own_outputs]
            np.multiply(layer.up.T, np.float32(adapter.scale), out=block)
        at_rank += own_rank
        at_output += own_outputs
    return first, second
