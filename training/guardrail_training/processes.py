"""The processes of a distributed run, as torchrun or accelerate start them; alone, there is one.

Batch sizes are those of the whole run: the same recipe takes the same steps on any number of processes. Every
process holds all weights and applies the same summed gradient, so weights stay equal without being sent.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from guardrail.errors import ConfigError, MissingExtraError

__all__ = ["Processes"]

T = TypeVar("T")


class Processes:
    """How many processes there are and which one this is; what they must agree on goes through here."""

    def __init__(self) -> None:
        self.index, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        if self.count > 1:
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise MissingExtraError(feature="training in several processes", extra="train") from error
            self.index = PartialState(cpu=True).process_index

    @property
    def is_first(self) -> bool:
        """Whether this process writes files."""
        return self.index == 0

    def require_multiple(self, size: int, *, setting: str) -> None:
        """Raises ConfigError unless the processes can share ``size`` rows evenly."""
        if size % self.count:
            raise ConfigError(f"{setting} must be a multiple of the {self.count} processes, got {size}")

    def own(self, rows: Sequence[T]) -> Sequence[T]:
        """This process's part of the rows, which lie side by side."""
        size = len(rows) // self.count
        return rows[self.index * size : (self.index + 1) * size]

    def gather(self, part: T) -> list[T]:
        """The parts of all processes, in their order."""
        if self.count == 1:
            return [part]
        from accelerate.utils import gather_object

        parts: list[T] = gather_object([part])
        return parts

    def total(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Puts the sum over all processes into every parameter's gradient."""
        if self.count == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        summed = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        sizes = [parameter.numel() for parameter in parameters]
        for parameter, gradient in zip(parameters, torch.split(summed, sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)

    def any(self, flag: bool, /) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.total(torch.tensor(int(flag))) > 0)
