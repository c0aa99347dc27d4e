"""Weights as 8-bit codes: how each number is rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Inputs", "LayerInputs", "quantise_columns", "quantise_rows", "smoothing"]

Array = npt.NDArray[Any]

WEIGHT_MAX = 63  # pairs of products with 8-bit activations then fit 16-bit sums, see onnx_graph
EMBEDDING_MAX = 127
DAMPING = 0.01  # of the mean energy of a channel, so that channels which hardly vary can be solved for


@dataclass(frozen=True, slots=True, eq=False)
class LayerInputs:
    """What a linear layer was given on calibration texts."""

    top: npt.NDArray[np.float32]  # (in,), largest magnitude of each channel
    energy: npt.NDArray[np.float64]  # (in, in), mean over tokens of the product of two channels

    def divided(self, factors: Array) -> LayerInputs:
        """The same for inputs whose channels are divided by ``factors``, (in,)."""
        return LayerInputs(self.top / factors, self.energy / np.outer(factors, factors))


Inputs = Mapping[str, LayerInputs]


def quantise_columns(
    weight: Array, *, most: int = WEIGHT_MAX, seen: LayerInputs | None = None
) -> tuple[Array, Array]:
    """An (in, out) matrix as int8 with one float32 scale per output.

    With inputs to go by, what rounding one row got wrong is made up for in the rows after it, so that the
    products change least (GPTQ, Frantar et al. 2023, algorithm 1); without, each number is rounded by itself.
    """
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-8) / most
    codes = np.round(weight / scale) if seen is None else _compensated(weight, scale, seen.energy, most=most)
    return np.clip(codes, -most, most).astype(np.int8), scale.astype(np.float32)


def _compensated(weight: Array, scale: Array, energy: Array, *, most: int) -> Array:
    """Codes row by row; each row's error goes into the later ones as far as their channels vary together."""
    damped = energy + DAMPING * energy.diagonal().mean() * np.eye(len(energy))
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T  # (in, in)
    rest = weight.astype(np.float64)
    codes = np.zeros_like(rest)
    for row in range(len(rest)):
        codes[row] = np.clip(np.round(rest[row] / scale), -most, most)
        error = (rest[row] - codes[row] * scale) / upper[row, row]
        rest[row + 1 :] -= np.outer(upper[row, row + 1 :], error)
    return codes


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
