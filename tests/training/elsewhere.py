"""A device that is not the CPU, on any machine: its tensors hold values, and refuse to meet those of the CPU.

Its name is torch's ``meta``, whose tensors have no memory of their own; here they hold a tensor of the CPU,
with which every operation is computed. As on a GPU, an operation over both devices is an error, but for
numbers and for indices, and ``numpy`` wants the CPU's. What a GPU does otherwise (its kernels, its own random
numbers, its streams) is not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["ELSEWHERE", "elsewhere"]

ELSEWHERE = torch.device("meta")
# Copies from device to device; and operations whose indices a GPU takes from the CPU too.
BETWEEN = ("_to_copy", "copy_")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put")


class There(Tensor):
    """A tensor of the other device; ``inner`` has its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        made: There = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]  # torch leaves it untyped
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=ELSEWHERE,
            requires_grad=False,
        )
        made.inner = inner
        return made

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __repr__(self, **_: Any) -> str:
        return f"There({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with Elsewhere():
            return func(*args, **(kwargs or {}))


class Elsewhere(TorchDispatchMode):
    """Computes what happens on the other device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        there = [each for each in given if isinstance(each, There)]
        name = func.__name__.partition(".")[0]
        asked = kwargs.get("device")
        if asked is not None:
            is_there = torch.device(asked) == ELSEWHERE
            kwargs["device"] = torch.device("cpu")
        else:
            is_there = bool(there)
        if there and name not in BETWEEN:
            checked = (args[0], *args[2:]) if name in INDEXED else given
            tensors = [each for each in checked if isinstance(each, Tensor) and each.dim()]
            here = [each for each in tensors if not isinstance(each, There)]
            if here:
                raise RuntimeError(f"{func} over two devices: {here[0].shape} is on the CPU")
        if name == "copy_":
            is_there = isinstance(args[0], There)
        plain_args, plain = tree_map(_inner, args), tree_map(_inner, kwargs)
        answer = func(*plain_args, **plain)
        known = {id(each.inner): each for each in there}
        return tree_map(lambda each: _outer(each, known) if is_there else each, answer)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, There) else value


def _outer(value: Any, known: dict[int, There]) -> Any:
    if not isinstance(value, Tensor):
        return value
    return known[id(value)] if id(value) in known else There(value)


class _Made(TorchFunctionMode):
    """Tensors made of Python's values, which no dispatch sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        return func(*args, **kwargs)


@contextmanager
def elsewhere() -> Iterator[None]:
    """While inside, ``device = "meta"`` is a device like another."""
    with Elsewhere(), _Made():
        yield
