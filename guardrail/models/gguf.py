"""GGUF files read with numpy alone: metadata, and tensors as they are stored.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ModelFileError

__all__ = ["Gguf", "Stored", "parse_gguf"]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LAYOUTS = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144), 14: ("Q6_K", 256, 210),
}  # fmt: skip
"""By type number: name, weights in a block, bytes of a block."""
_SIZE = struct.Struct("<Q")
MAX_DIMENSIONS = 4
MAX_NESTING = 4


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One tensor's bytes, shape (rows, blocks, bytes of a block), and its shape as numpy counts dimensions.

    A form that is not quantised has blocks of one number.
    """

    kind: str
    shape: tuple[int, ...]
    content: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Gguf:
    """What a file holds: metadata by key, tensors by ggml's names."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Stored]


def parse_gguf(content: memoryview, *, where: str) -> Gguf:
    """The metadata and tensors of a GGUF file of version 2 or 3, as views of its content.

    Raises ModelFileError, naming ``where``, for anything else, for a file that ends early, and for a tensor
    that is stored in another form than those of ``_LAYOUTS``.
    """
    try:
        return _FileReader(content).read(where)
    except (struct.error, ValueError, KeyError, OverflowError, MemoryError) as error:
        raise ModelFileError(f"{where} is not a GGUF file, or not all of one; fetch it again") from error


class _FileReader:
    """A place in the file that moves on with what is read."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._at = 0

    def read(self, where: str) -> Gguf:
        if bytes(self._content[:4]) != b"GGUF":
            raise ValueError("magic")
        self._at = 4
        if self._number("I") not in (2, 3):
            raise ValueError("version")
        tensors, entries = self._number("Q"), self._number("Q")
        metadata: dict[str, Any] = {}
        for _ in range(entries):
            _add(metadata, self._string(), self._value(self._number("I")))
        places: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(tensors):
            _add(places, self._string(), self._place())
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError("alignment")
        start = -(-self._at // alignment) * alignment
        stored = {
            name: self._tensor(start, *place, where=f"{where}: {name}") for name, place in places.items()
        }
        return Gguf(metadata, stored)

    def _place(self) -> tuple[tuple[int, ...], int, int]:
        dimensions = self._number("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise ValueError("dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return shape[::-1], self._number("I"), self._number("Q")  # ggml counts the fastest dimension first

    def _tensor(self, start: int, shape: tuple[int, ...], kind: int, offset: int, *, where: str) -> Stored:
        if kind not in _LAYOUTS:
            known = ", ".join(name for name, _, _ in _LAYOUTS.values())
            raise ModelFileError(f"{where} is stored in type {kind} of ggml; expected one of {known}")
        name, weights, size = _LAYOUTS[kind]
        rows, columns = math.prod(shape[:-1]), shape[-1]
        if columns % weights or not rows * columns:
            raise ValueError("a row that is not made of whole blocks, or nothing at all")
        blocks = columns // weights
        end = start + offset + rows * blocks * size
        if end > len(self._content):
            raise ValueError("a tensor beyond the end")
        part = np.frombuffer(self._content[start + offset : end], dtype=np.uint8)
        return Stored(name, shape, part.reshape(rows, blocks, size))

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._content, self._at)
        self._at += struct.calcsize(f"<{form}")
        return value

    def _string(self) -> str:
        start = self._at + _SIZE.size
        (size,) = _SIZE.unpack_from(self._content, self._at)
        if size > len(self._content) - start:
            raise ValueError("a string beyond the end")
        self._at = start + size
        return str(self._content[start : self._at], "utf-8", "surrogateescape")

    def _value(self, kind: int, *, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind])
        inner, count = self._number("I"), self._number("Q")
        if inner == _STRING:
            return [self._string() for _ in range(count)]
        if inner == _ARRAY:
            if depth == MAX_NESTING:
                raise ValueError("arrays in arrays in arrays")
            return [self._value(_ARRAY, depth=depth + 1) for _ in range(count)]
        # struct and numpy have the same letters for numbers
        array = np.frombuffer(self._content, dtype=f"<{_SCALARS[inner]}", count=count, offset=self._at)
        self._at += array.nbytes
        return array


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if name in found:
        raise ValueError("a name that occurs twice")
    found[name] = value
