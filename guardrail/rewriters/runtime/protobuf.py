"""ONNX models as bytes, written field by field: the onnx package is not needed to run one.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["GraphWriter"]

OPSETS = {"": 18, "com.microsoft": 1}
IR_VERSION = 8  # the first that goes with opset 18
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7}
_EXTERNAL = 1

Array = npt.NDArray[Any]
Attribute = int | float | str | Sequence[int]
Shape = Sequence[int | str]


class GraphWriter:
    """A graph that grows by inputs, constants, weights and nodes, in the order in which they are computed."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._initializers: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, kind: str, shape: Shape) -> str:
        """Declares an input; a dimension that varies is a name. Returns the name."""
        self._inputs.append(_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: str, shape: Shape) -> None:
        """Declares what a node computes as an output of the model."""
        self._outputs.append(_value_info(name, kind, shape))

    def constant(self, name: str, array: Array) -> str:
        """A small array that is part of the model. Returns the name."""
        self._initializers.append(
            _tensor(name, array.dtype.name, array.shape) + _bytes(9, np.ascontiguousarray(array).tobytes())
        )
        return name

    def weight(self, name: str, array: Array) -> str:
        """An array that is not part of the model: a session is handed it by name. Returns the name."""
        place = _bytes(1, b"location") + _bytes(2, b"memory")
        self._initializers.append(
            _tensor(name, array.dtype.name, array.shape) + _bytes(13, place) + _number(14, _EXTERNAL)
        )
        return name

    def node(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: Attribute,
    ) -> str:
        """One operation. Returns the name of its first output."""
        content = b"".join(_bytes(1, name.encode()) for name in inputs)
        content += b"".join(_bytes(2, name.encode()) for name in outputs)
        content += _bytes(3, outputs[0].encode()) + _bytes(4, op.encode())
        content += b"".join(_bytes(5, _attribute(name, value)) for name, value in attributes.items())
        self._nodes.append(content + _bytes(7, domain.encode()))
        return outputs[0]

    def serialized(self) -> bytes:
        """The model, as onnxruntime takes it."""
        graph = b"".join(_bytes(1, node) for node in self._nodes) + _bytes(2, self._name.encode())
        for field, values in ((5, self._initializers), (11, self._inputs), (12, self._outputs)):
            graph += b"".join(_bytes(field, value) for value in values)
        model = _number(1, IR_VERSION) + _bytes(2, b"detox-guardrail") + _bytes(7, graph)
        for domain, version in OPSETS.items():
            model += _bytes(8, _bytes(1, domain.encode()) + _number(2, version))
        return model


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers are written in two's complement
    pieces = bytearray()
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    pieces.append(value)
    return bytes(pieces)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _tensor(name: str, kind: str, shape: Sequence[int]) -> bytes:
    dimensions = b"".join(_number(1, size) for size in shape)
    return dimensions + _number(2, _TYPES[kind]) + _bytes(8, name.encode())


def _value_info(name: str, kind: str, shape: Shape) -> bytes:
    dimensions = b"".join(
        _bytes(1, _number(1, size) if isinstance(size, int) else _bytes(2, size.encode())) for size in shape
    )
    tensor = _number(1, _TYPES[kind]) + _bytes(2, dimensions)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _attribute(name: str, value: Attribute) -> bytes:
    content = _bytes(1, name.encode())
    if isinstance(value, float):
        return content + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, 1)
    if isinstance(value, int):
        return content + _number(3, value) + _number(20, 2)
    if isinstance(value, str):
        return content + _bytes(4, value.encode()) + _number(20, 3)
    return content + b"".join(_number(8, item) for item in value) + _number(20, 7)
