"""Safetensors files with numpy alone: a length, a JSON header, and the numbers one after another.

The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ModelFileError

__all__ = ["TensorEntry", "parse_safetensors", "safetensors_entries", "write_safetensors"]

MAX_HEADER = 100_000_000
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class TensorEntry:
    """One tensor of a file, not yet read; ``kind`` is the format's name of its type, such as BF16."""

    kind: str
    shape: tuple[int, ...]
    content: memoryview

    def array(self) -> Array:
        """A view of the content; bfloat16, which numpy does not have, becomes float32, exactly."""
        array = np.frombuffer(self.content, dtype=_TYPES[self.kind]).reshape(self.shape)
        return (array.astype(np.uint32) << 16).view(np.float32) if self.kind == "BF16" else array


def parse_safetensors(content: bytes | memoryview, *, where: str) -> dict[str, Array]:
    """The tensors of a safetensors file by name; raises as ``safetensors_entries`` does."""
    return {name: entry.array() for name, entry in safetensors_entries(content, where=where).items()}


def safetensors_entries(content: bytes | memoryview, *, where: str) -> dict[str, TensorEntry]:
    """What a safetensors file holds, by name.

    Raises ModelFileError, naming ``where``, for anything that is not a whole safetensors file, and for a
    tensor of a type that numpy cannot hold.
    """
    try:
        header, numbers = _parts(memoryview(content))
        found = {name: entry for name, entry in header.items() if name != "__metadata__"}
        strange = sorted({entry["dtype"] for entry in found.values()} - set(_TYPES))
        if strange:
            raise ModelFileError(f"{where} holds numbers of type {strange}; expected one of {sorted(_TYPES)}")
        return {name: _entry(numbers, entry) for name, entry in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            f"{where} is not a safetensors file, or not all of one; fetch it again"
        ) from error


def _parts(content: memoryview) -> tuple[dict[str, Any], memoryview]:
    size = int.from_bytes(content[:8], "little")
    if not 2 <= size <= min(MAX_HEADER, len(content) - 8):
        raise ValueError("length of the header")
    return json.loads(bytes(content[8 : 8 + size]).decode()), content[8 + size :]


def _entry(numbers: memoryview, entry: dict[str, Any]) -> TensorEntry:
    kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, start, end)):
        raise ValueError("a shape or an offset that is not a whole number")
    if not (
        start <= end <= len(numbers) and end - start == math.prod(shape) * np.dtype(_TYPES[kind]).itemsize
    ):
        raise ValueError("offsets beyond the file, or of another size than the shape's")
    return TensorEntry(kind, tuple(shape), numbers[start:end])


def write_safetensors(path: Path, shapes: Mapping[str, tuple[int, ...]], arrays: Iterable[Array]) -> None:
    """Writes float32 tensors; ``arrays`` come one by one, in the order of the sorted names."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(shapes):
        start, end = end, end + 4 * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [start, end]}
    written = json.dumps(header, separators=(",", ":")).encode()
    written += b" " * (-len(written) % 8)
    with path.open("xb") as file:
        file.write(len(written).to_bytes(8, "little") + written)
        for name, array in zip(sorted(shapes), arrays, strict=True):
            assert array.shape == shapes[name]
            file.write(np.ascontiguousarray(array, dtype="<f4").data)
