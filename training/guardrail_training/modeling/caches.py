"""What a model remembers while it generates, with spare capacity: transformers copies it at every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import DynamicLayer

__all__ = ["can_join", "join_left_padded", "with_room"]

GROWTH = 1.5
FIRST_ROOM = 64


class _PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # mypy does not read transformers
    """A layer's keys and values ``(rows, heads, time, width)``, written into the room behind them."""

    def __init__(self, layer: DynamicLayer) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self._hold(layer.keys, layer.values, room=FIRST_ROOM)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Adds the states of more tokens; gives all."""
        before = self.keys.shape[2]
        after = before + key_states.shape[2]
        if after > self._room[0].shape[2]:
            self._hold(self.keys, self.values, room=max(int(GROWTH * after), FIRST_ROOM) - before)
        for held, states in zip(self._room, (key_states, value_states), strict=True):
            held[:, :, before:after] = states
        self._show(after)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows alone."""
        time, room = self.keys.shape[2], self._room[0].shape[2]
        self._hold(self.keys[indices], self.values[indices], room=room - time)

    def _hold(self, keys: Tensor, values: Tensor, *, room: int) -> None:
        self._room = [
            torch.cat([states, states.new_empty(*states.shape[:2], room, states.shape[3])], dim=2)
            for states in (keys, values)
        ]
        self._show(keys.shape[2])

    def _show(self, time: int) -> None:
        self.keys, self.values = (held[:, :, :time] for held in self._room)


def with_room(cache: Any) -> Any:
    """The cache with spare capacity in every layer that only grows; those of other kinds stay as they are."""
    own = getattr(cache, "self_attention_cache", cache)
    own.layers = [_PreallocatedLayer(layer) if _only_grows(layer) else layer for layer in own.layers]
    return cache


def can_join(cache: Any) -> bool:
    """Whether ``join_left_padded`` knows all layers of the cache."""
    return all(_only_grows(layer) for layer in cache.layers)


def join_left_padded(caches: Sequence[Any], *, time: int) -> Any:
    """One cache of the rows of several, those of fewer tokens than ``time`` padded in front."""
    whole = caches[0]
    for layer, *others in zip(*(cache.layers for cache in caches), strict=True):
        layer.keys = _stacked([layer.keys, *(other.keys for other in others)], time)
        layer.values = _stacked([layer.values, *(other.values for other in others)], time)
    return whole


def _stacked(parts: Sequence[Tensor], time: int) -> Tensor:
    return torch.cat([functional.pad(part, (0, 0, time - part.shape[2], 0)) for part in parts])


def _only_grows(layer: Any) -> bool:
    return type(layer) is DynamicLayer and layer.is_initialized
