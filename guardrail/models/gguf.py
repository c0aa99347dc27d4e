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
_LAYOUTS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}
"""By type number: name, weights in a block, bytes of a block."""


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One tensor's bytes, shape (rows, bytes of a row); ``columns`` counts its weights."""

    kind: str
    columns: int
    content: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Gguf:
    """What a file holds: metadata by key, tensors by ggml's names."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, Stored]


def parse_gguf(content: memoryview, *, where: str) -> Gguf:
    """The metadata and tensors of a GGUF file of version 2 or 3, as views of its content.

    Raises ModelFileError, naming ``where``, for anything else, for a file that ends early, and for a tensor
    that is stored in a form other than F32, F16, Q4_1 and Q8_0.
    """
    try:
        return _Reader(content).read(where)
    except (struct.error, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise ModelFileError(f"{where} is not a GGUF file, or not all of one; fetch it again") from error


class _Reader:
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
        metadata = {}
        for _ in range(entries):
            key = self._string()
            metadata[key] = self._value(self._number("I"))
        places = {self._string(): self._place() for _ in range(tensors)}
        alignment = metadata.get("general.alignment", 32)
        start = -(-self._at // alignment) * alignment
        stored = {
            name: self._tensor(start, *place, where=f"{where}: {name}") for name, place in places.items()
        }
        return Gguf(metadata, stored)

    def _place(self) -> tuple[tuple[int, ...], int, int]:
        shape = tuple(self._number("Q") for _ in range(self._number("I")))
        return shape, self._number("I"), self._number("Q")

    def _tensor(self, start: int, shape: tuple[int, ...], kind: int, offset: int, *, where: str) -> Stored:
        if kind not in _LAYOUTS:
            known = ", ".join(name for name, _, _ in _LAYOUTS.values())
            raise ModelFileError(f"{where} is stored in type {kind} of ggml; expected one of {known}")
        name, weights, size = _LAYOUTS[kind]
        columns, rows = shape[0], math.prod(shape[1:])  # ggml counts the fastest dimension first
        if columns % weights:
            raise ValueError("a row that is not made of whole blocks")
        width = columns // weights * size
        part = self._content[start + offset : start + offset + rows * width]
        return Stored(name, columns, np.frombuffer(part, dtype=np.uint8).reshape(rows, width))

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(f"<{form}", self._content, self._at)
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        size = self._number("Q")
        if self._at + size > len(self._content):
            raise ValueError("a string beyond the end")
        text = bytes(self._content[self._at : self._at + size]).decode("utf-8", "surrogateescape")
        self._at += size
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._number(_SCALARS[kind])
        inner, count = self._number("I"), self._number("Q")
        if inner in (_STRING, _ARRAY):
            return [self._value(inner) for _ in range(count)]
        array = np.frombuffer(self._content, dtype=f"<{_NUMPY[inner]}", count=count, offset=self._at)
        self._at += array.nbytes
        return array


_NUMPY = {
    0: "u1",
    1: "i1",
    2: "u2",
    3: "i2",
    4: "u4",
    5: "i4",
    6: "f4",
    7: "u1",
    10: "u8",
    11: "i8",
    12: "f8",
}
