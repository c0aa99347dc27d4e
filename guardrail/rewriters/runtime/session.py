"""A base in memory: passes over a cache of slots, under whichever adapter a call names."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from guardrail.models.blocks import Matrix, as_floats
from guardrail.models.weights import LlamaShape, Weights
from guardrail.rewriters.runtime.graph import Precision, rotation, write_graph
from guardrail.rewriters.runtime.protobuf import GraphWriter

__all__ = ["PassResult", "Runtime", "Slots"]

MIN_SLOTS = 256
EMBEDDING = "model.embed_tokens.weight"
MASKED = np.float32(-1e30)

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Factors = Mapping[str, Floats]
"""An adapter's matrices by the names of the graph's inputs."""


@dataclass(frozen=True, slots=True, eq=False)
class PassResult:
    """What a pass says of the tokens that were picked: their likeliest followers, the likeliest first.

    ``top_logits`` and ``top_ids`` are (picked, likeliest). ``logits`` are (picked, vocabulary) and hold until
    the runtime's next pass, which writes to the same memory.
    """

    top_logits: Floats
    top_ids: Integers
    logits: Floats


class Slots:
    """Keys and values of tokens that were read, one slot each: (1, heads, slots, head size) by layer."""

    def __init__(self, shape: LlamaShape, count: int) -> None:
        self.used = 0
        names = [f"layers.{layer}.{side}" for layer in range(shape.layers) for side in ("keys", "values")]
        # In one block, which takes no memory if it was never written to.
        block = np.zeros((len(names), 1, shape.kv_heads, count, shape.head_size), dtype=np.float32)
        self.arrays = dict(zip(names, block, strict=True))

    @property
    def count(self) -> int:
        """How many there are, in use or not."""
        return int(next(iter(self.arrays.values())).shape[2])

    def keep(self, slots: npt.NDArray[np.intp]) -> None:
        """Moves these slots to the front, in their order, and forgets all others."""
        for array in self.arrays.values():
            array[:, :, : len(slots)] = array[:, :, slots]
        self.used = len(slots)

    def copy_from(self, other: Slots) -> None:
        """Takes over what is in use there."""
        for name, array in self.arrays.items():
            array[:, :, : other.used] = other.arrays[name][:, :, : other.used]
        self.used = other.used


class Runtime:
    """Runs passes; one thread at a time, which holds it by ``held``.

    ``load`` gives the weights; they are asked for again in a forked child, which has none of the threads
    that the parent's session computes with.
    """

    def __init__(
        self, load: Callable[[], Weights], *, positions: int, precision: Precision, threads: int | None = None
    ) -> None:
        self._precision = precision
        self.positions = positions
        self._load = load
        self._threads = threads
        self._lock = threading.RLock()
        self._open()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=partial(_abandon, weakref.ref(self)))

    def _open(self) -> None:
        weights = self._load()
        self.shape = weights.shape
        self._embedding = weights.tensors[EMBEDDING]
        # Decoded at every look-up, so it is looked up once for both of its uses.
        tensors = ChainMap({EMBEDDING: self._embedding}, cast("MutableMapping[str, Matrix]", weights.tensors))
        graph = write_graph(Weights(self.shape, tensors), precision=self._precision)
        del weights, tensors  # and with them the mapped file
        self._session = _session(graph.content, graph.arrays, threads=self._threads)
        # The session reads these where they are. Matrices are packed into memory of its own, if it packs any.
        self._arrays = {
            name: array
            for name, array in graph.arrays.items()
            if name not in graph.packed or not _packs(self._precision)
        }
        del graph
        _return_freed_memory()
        self._binding = self._session.io_binding()
        self._rotation = rotation(self.shape, self.positions)
        self._bound: tuple[Factors | None, Slots | None] = (None, None)
        self._spare: Slots | None = None
        self._logits = np.empty((0, self.shape.vocabulary), dtype=np.float32)
        self._is_open = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """The runtime for this thread alone while inside."""
        with self._lock:
            if not self._is_open:
                self._open()
            yield

    def slots(self, count: int) -> Slots:
        """Slots of which none is in use; the same memory for every call that asks for so many."""
        if self._spare is None or self._spare.count != count:
            self._spare = Slots(self.shape, count)
        self._spare.used = 0
        return self._spare

    def abandon(self) -> None:
        """Leaves the session to itself; the next call opens another one."""
        _ABANDONED.append((self._session, self._binding))  # freeing one waits for threads that are gone
        self._lock = threading.RLock()
        self._is_open = False

    def read(
        self,
        factors: Factors,
        slots: Slots,
        ids: Sequence[int],
        *,
        positions: Sequence[int],
        bias: Floats,
        picked: Sequence[int],
        likeliest: int,
    ) -> PassResult:
        """Reads new tokens into the next free slots. ``bias`` is (tokens, slots in use afterwards): 0 where a
        token sees a slot, MASKED where it does not. ``picked`` are places among the new tokens.
        """
        binding, end = self._binding, slots.used + len(ids)
        self._bind(factors, slots)
        likeliest = min(likeliest, self.shape.vocabulary)
        given: dict[str, npt.NDArray[Any]] = {
            "embedded": self._embedded(ids),
            "positions": np.array([positions], dtype=np.int64),
            "bias": np.ascontiguousarray(bias[None, None], dtype=np.float32),
            "last_slot": np.array([end - 1], dtype=np.int32),
            "slots": np.array(end, dtype=np.int32),
            "picked": np.array(picked, dtype=np.int64),
            "likeliest": np.array([likeliest], dtype=np.int64),
        }
        taken: dict[str, npt.NDArray[Any]] = {
            "head.product": self._logits_of(len(picked)),
            "top_logits": np.empty((len(picked), likeliest), dtype=np.float32),
            "top_ids": np.empty((len(picked), likeliest), dtype=np.int64),
        }
        for name, array in given.items():
            binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        for name, array in taken.items():
            binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
        self._session.run_with_iobinding(binding)
        slots.used = end
        return PassResult(taken["top_logits"], taken["top_ids"], taken["head.product"])

    def _bind(self, factors: Factors, slots: Slots) -> None:
        """Binds what stays from pass to pass; an adapter is swapped by binding its matrices."""
        if self._bound[0] is not factors:
            for name, array in factors.items():
                self._binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        if self._bound[1] is not slots:
            if (
                len(self._rotation[0]) < slots.count
            ):  # asked for by the operator, although positions are given
                self._rotation = rotation(self.shape, slots.count)
            for name, table in zip(("cosines", "sines"), self._rotation, strict=True):
                self._binding.bind_input(name, "cpu", 0, np.float32, table.shape, table.ctypes.data)
            for name, array in slots.arrays.items():
                place = ("cpu", 0, np.float32, array.shape, array.ctypes.data)
                self._binding.bind_input(f"{name}.past", *place)
                self._binding.bind_output(f"{name}.present", *place)  # the same memory: nothing is copied
        self._bound = (factors, slots)

    def _logits_of(self, count: int) -> Floats:
        """Memory for the logits of so many tokens, some 200 kB each, which passes share."""
        if len(self._logits) < count:
            self._logits = np.empty((count, self.shape.vocabulary), dtype=np.float32)
        return self._logits[:count]

    def _embedded(self, ids: Sequence[int]) -> Floats:
        return np.ascontiguousarray(as_floats(self._embedding[np.array(ids, dtype=np.intp)]))


_ABANDONED: list[object] = []


def _abandon(runtime: weakref.ref[Runtime]) -> None:
    if (current := runtime()) is not None:
        current.abandon()


def _return_freed_memory() -> None:
    """Gives the memory that loading freed, some 70 MB, back to the system if the C library can (glibc)."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


@cache
def _packs(precision: Precision) -> bool:
    """Whether onnxruntime copies the matrices of products on this machine: found out by erasing one."""
    kind, weight_kind = (np.uint8, np.int8) if precision == "int8" else (np.float32, np.float32)
    state, weight = np.full((2, 64), 3, dtype=kind), np.full((64, 64), 5, dtype=weight_kind)
    writer = GraphWriter("probe")
    writer.input("state", kind.__name__, ["S", 64])
    writer.weight("weight", weight)
    if precision == "int8":
        writer.constant("scale", np.array(1, dtype=np.float32))
        inputs = ["state", "weight", "scale", "scale"]
        writer.node("MatMulIntegerToFloat", inputs, ["product"], domain="com.microsoft")
    else:
        writer.node("MatMul", ["state", "weight"], ["product"])
    writer.output("product", "float32", ["S", 64])
    session = _session(writer.serialized(), {"weight": weight}, threads=1)
    (before,) = session.run(None, {"state": state})
    weight[:] = 0
    (after,) = session.run(None, {"state": state})
    return bool((before == after).all())


def _session(content: bytes, arrays: Mapping[str, npt.NDArray[Any]], *, threads: int | None) -> Any:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0  # 0: as many as physical cores
    options.log_severity_level = 4  # what goes wrong is raised
    # Passes differ in size: memory kept for one is of no use to the next.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The digits of a state are not a quantised model that could be simplified.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays.values()]
    options.add_external_initializers(list(arrays), values)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
