"""A base model in memory and the adapters that take turns on it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from guardrail.errors import MissingExtraError, ModelFileError
from guardrail.models.convert import for_torch, quiet_transformers
from guardrail.rewriters.adapter import Adapter, Factors
from guardrail.rewriters.folders import BaseFolder

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Base", "open_base"]


class Base:
    """A frozen causal language model in float32 with its tokenizer, shared by any number of adapters.

    ``identity`` is the sha256 by which manifests name it, ``stop`` the ids of all control tokens: none of
    them can be part of a rewrite, so each ends one.
    """

    def __init__(self, *, model: Any, tokenizer: Any, identity: str, folder: Path) -> None:
        self.tokenizer = tokenizer
        self.identity = identity
        self.stop = frozenset(_control_tokens(tokenizer))
        self._model = model
        self._folder = folder
        self._stored = frozenset(_stored_names(folder))
        self._lock = threading.RLock()
        self._attached: weakref.WeakSet[Adapter] = weakref.WeakSet()
        self._merged: Adapter | None = None

    def attach(self, adapter: Adapter) -> None:
        """Counts the adapter as in use until it is garbage. Raises ModelFileError if it does not fit."""
        for name, factors in adapter.layers.items():
            self._check_fit(name, factors)
        with self._lock:
            self._attached.add(adapter)

    @contextmanager
    def applied(self, adapter: Adapter) -> Iterator[Any]:
        """The model as the adapter changes it, for this thread alone while inside."""
        with self._lock:
            if self._merged is not None and (self._merged is not adapter or len(self._attached) > 1):
                self._unmerge(self._merged)
            if len(self._attached) == 1:
                if self._merged is None:
                    self._merge(adapter)
                yield self._model
                return
            handles = [
                self._add_beside(name, factors, adapter.scale) for name, factors in adapter.layers.items()
            ]
            try:
                yield self._model
            finally:
                for handle in handles:
                    handle.remove()

    def _check_fit(self, name: str, factors: Factors) -> None:
        from torch import nn

        try:
            layer = self._model.get_submodule(name)
        except AttributeError as error:
            raise ModelFileError(f"the adapter changes {name!r}, which the base does not have") from error
        if not isinstance(layer, nn.Linear):
            raise ModelFileError(f"the adapter changes {name!r}, which is not a linear layer of the base")
        if f"{name}.weight" not in self._stored:
            raise ModelFileError(
                f"the adapter changes {name!r}, whose weight the base shares with another layer"
            )
        shape = (factors.up.shape[0], factors.down.shape[1])
        if shape != tuple(layer.weight.shape):
            raise ModelFileError(f"the adapter's {name!r} is {shape}, the base's {tuple(layer.weight.shape)}")

    def _merge(self, adapter: Adapter) -> None:
        import torch

        self._merged = adapter
        with torch.no_grad():
            for name, factors in adapter.layers.items():
                weight = self._model.get_submodule(name).weight
                up, down = torch.from_numpy(factors.up), torch.from_numpy(factors.down)
                weight.addmm_(up, down, alpha=adapter.scale)

    def _unmerge(self, adapter: Adapter) -> None:
        """Reads the original weights again: subtracting leaves rounding errors that grow with every turn."""
        import torch
        from safetensors import safe_open

        wanted = {f"{name}.weight" for name in adapter.layers}
        with torch.no_grad():
            for path in sorted(self._folder.glob("*.safetensors")):
                with safe_open(path, framework="pt") as file:
                    for name in wanted & set(file.keys()):
                        self._model.get_parameter(name).copy_(file.get_tensor(name))
        self._merged = None

    def _add_beside(self, name: str, factors: Factors, scale: float) -> Any:
        import torch
        from torch.nn.functional import linear

        narrow, wide = torch.from_numpy(factors.down), torch.from_numpy(factors.up * np.float32(scale))

        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + linear(linear(inputs[0], narrow), wide)

        return self._model.get_submodule(name).register_forward_hook(add)


def open_base(base_folder: BaseFolder) -> Base:
    """The base of a verified folder."""
    folder = base_folder.path
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise MissingExtraError(feature="rewriting with torch", extra="torch") from error
    folder = for_torch(folder)
    options = {"local_files_only": True, "trust_remote_code": False}
    with quiet_transformers():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, **options
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelFileError(
                f"{folder} is not a causal language model that can be opened: {error}"
            ) from error
    model.requires_grad_(False).train(False)
    return Base(model=model, tokenizer=tokenizer, identity=base_folder.identity, folder=folder)


def _stored_names(folder: Path) -> Iterator[str]:
    from safetensors import safe_open

    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            yield from file.keys()


def _control_tokens(tokenizer: Any) -> Iterator[int]:
    yield from tokenizer.all_special_ids
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token.special:
            yield token_id
