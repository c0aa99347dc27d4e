"""Safetensors files read with numpy alone: a length, a JSON header, and the numbers one after another."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ModelFileError

__all__ = ["parse_safetensors"]

MAX_HEADER = 100_000_000
_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"} | {
    "U8": "u1",
    "BOOL": "?",
    "BF16": "<u2",
}

Array = npt.NDArray[Any]


def parse_safetensors(content: bytes | memoryview, *, where: str) -> dict[str, Array]:
    """The tensors of a safetensors file by name, as views of its content where numpy has their type.

    bfloat16 becomes float32, exactly. Raises ModelFileError, naming ``where``, for anything that is not
    a whole safetensors file.
    """
    try:
        return dict(_tensors(memoryview(content)))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            f"{where} is not a safetensors file, or not all of one; fetch it again"
        ) from error


def _tensors(content: memoryview) -> Iterator[tuple[str, Array]]:
    size = int.from_bytes(content[:8], "little")
    if not 2 <= size <= min(MAX_HEADER, len(content) - 8):
        raise ValueError("length of the header")
    header = json.loads(bytes(content[8 : 8 + size]).decode())
    numbers = content[8 + size :]
    for name, entry in header.items():
        if name != "__metadata__":
            yield name, _tensor(numbers, entry)


def _tensor(numbers: memoryview, entry: dict[str, Any]) -> Array:
    kind, shape, (start, end) = np.dtype(_TYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, start, end)):
        raise ValueError("a shape or an offset that is not a whole number")
    if not (start <= end <= len(numbers) and end - start == math.prod(shape) * kind.itemsize):
        raise ValueError("offsets beyond the file, or of another size than the shape's")
    array = np.frombuffer(numbers[start:end], dtype=kind).reshape(shape)
    if entry["dtype"] == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
