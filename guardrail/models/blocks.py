"""Quantised matrices as ggml stores them, decoded with numpy alone.

The layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.models.gguf import Stored

__all__ = ["Blocks", "Matrix", "as_floats", "decoded"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A quantised matrix: weights that stand side by side share a scale, and a minimum if there is one.

    w = scale * quant + minimum. ``quants`` is (rows, columns), uint8 if there is a minimum, else int8;
    ``scale`` and ``minimum`` are (rows, blocks).
    """

    quants: npt.NDArray[np.uint8] | npt.NDArray[np.int8]
    scale: Floats
    minimum: Floats | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = self.quants.shape
        return rows, columns

    def __getitem__(self, rows: slice | npt.NDArray[np.intp]) -> Blocks:
        """These rows, in this order."""
        minimum = None if self.minimum is None else self.minimum[rows]
        return Blocks(self.quants[rows], self.scale[rows], minimum)

    def dequantised(self) -> Floats:
        """The matrix in float32, (rows, columns)."""
        rows, columns = self.shape
        count = self.scale.shape[1]
        blocks = self.quants.reshape(rows, count, columns // count).astype(np.float32)
        blocks *= self.scale[:, :, None]
        if self.minimum is not None:
            blocks += self.minimum[:, :, None]
        return blocks.reshape(rows, columns)


Matrix = Floats | Blocks


def as_floats(matrix: Matrix) -> Floats:
    """The matrix in float32."""
    return matrix.dequantised() if isinstance(matrix, Blocks) else matrix


def decoded(stored: Stored) -> Matrix:
    """A tensor of a GGUF file in numbers, quantised as it is stored."""
    if stored.kind in ("F32", "F16"):
        kind = "<f4" if stored.kind == "F32" else "<f2"
        return stored.content.view(kind).astype(np.float32).reshape(stored.shape)
    return _DECODERS[stored.kind](stored.content)


# Below, ``block`` is (rows, blocks, bytes of a block).


def _q8_0(block: Bytes) -> Blocks:
    quants = block[:, :, 2:].reshape(len(block), -1).view(np.int8)
    return Blocks(quants, _halves(block[:, :, :2])[:, :, 0].copy())


def _q4_1(block: Bytes) -> Blocks:
    scales = _halves(block[:, :, :4])
    return Blocks(_nibbles(block[:, :, 4:]), scales[:, :, 0].copy(), scales[:, :, 1].copy())


def _q5_0(block: Bytes) -> Blocks:
    """A nibble and a fifth bit for each weight, 16 subtracted."""
    quants = _nibbles(block[:, :, 6:])
    fifth = np.unpackbits(np.ascontiguousarray(block[:, :, 2:6]), axis=-1, bitorder="little")
    quants |= fifth.reshape(quants.shape) << 4
    quants -= 16  # below 0 it wraps round to what int8 reads as negative
    return Blocks(quants.view(np.int8), _halves(block[:, :, :2])[:, :, 0].copy())


def _q4_k(block: Bytes) -> Blocks:
    """256 weights in 8 blocks; their scales and minima have 6 bits each and share a scale and a minimum."""
    rows = len(block)
    whole = _halves(block[:, :, :4])
    low, middle, high = (block[:, :, start : start + 4] for start in (4, 8, 12))
    scale = np.concatenate([low & 63, (high & 15) | (low >> 6 << 4)], axis=-1).astype(np.float32)
    minimum = np.concatenate([middle & 63, (high >> 4) | (middle >> 6 << 4)], axis=-1).astype(np.float32)
    scale *= whole[:, :, :1]
    minimum *= -whole[:, :, 1:]
    quants = _nibbles(block[:, :, 16:].reshape(rows, -1, 32))
    return Blocks(quants, scale.reshape(rows, -1), minimum.reshape(rows, -1))


def _q6_k(block: Bytes) -> Blocks:
    """256 weights in 16 blocks, whose scales have 8 bits and share a scale; 4 and 2 bits, 32 subtracted."""
    rows, count, _ = block.shape
    low = block[:, :, :128].reshape(rows, count, 2, 1, 64) >> np.array([0, 4], dtype=np.uint8)[:, None]
    high = block[:, :, 128:192].reshape(rows, count, 2, 1, 32)
    high = high >> np.array([0, 2, 4, 6], dtype=np.uint8)[:, None]
    quants = (low & 15).reshape(rows, -1)
    quants |= ((high & 3) << 4).reshape(rows, -1)
    quants -= 32
    scale = np.ascontiguousarray(block[:, :, 192:208]).view(np.int8).astype(np.float32)
    scale *= _halves(block[:, :, 208:])
    return Blocks(quants.view(np.int8), scale.reshape(rows, -1))


def _nibbles(packed: Bytes) -> Bytes:
    """(rows, blocks, bytes) as (rows, columns): of each block first all lower halves, then all upper ones."""
    rows, blocks, size = packed.shape
    quants = np.empty((rows, blocks, 2, size), dtype=np.uint8)
    np.bitwise_and(packed, 15, out=quants[:, :, 0])
    np.right_shift(packed, 4, out=quants[:, :, 1])
    return quants.reshape(rows, -1)


def _halves(content: Bytes) -> npt.NDArray[Any]:
    """Numbers of 16 bits, in float32."""
    return np.ascontiguousarray(content).view("<f2").astype(np.float32)


_DECODERS = {"Q8_0": _q8_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q4_K": _q4_k, "Q6_K": _q6_k}
