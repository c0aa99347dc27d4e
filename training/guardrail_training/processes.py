"""The processes of a distributed run, as torchrun or accelerate start them; alone, there is one.

Batch sizes are those of the whole run: the same recipe takes the same steps on any number of processes. Every
process holds all that is trained and applies the same summed gradient, so weights stay equal without being
sent. A frozen base is held whole too, or in shares: see ``sharding``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from guardrail.errors import ConfigError, MissingExtraError
from guardrail_training.sharding import is_sharding_asked_for, shard_blocks

__all__ = ["Processes"]

CPU = torch.device("cpu")
T = TypeVar("T")


class Processes:
    """How many processes there are and which one this is; what they must agree on goes through here."""

    def __init__(self, *, device: torch.device = CPU, can_shard: bool = False) -> None:
        """``device`` is where this process computes; ``can_shard``, whether its trainer shards a base.

        Raises ConfigError if accelerate's configuration asks for what the trainer does not do.
        """
        self.index, self.count = 0, int(os.environ.get("WORLD_SIZE", "1"))
        asked = is_sharding_asked_for()
        if asked and not can_shard:
            raise ConfigError("this trainer cannot shard a base; start it without FSDP")
        self.is_sharded = asked and self.count > 1
        self._device = device
        if self.count > 1:
            try:
                from accelerate import PartialState
            except ImportError as error:
                raise MissingExtraError(feature="training in several processes", extra="train") from error
            if device.type == "cuda":
                torch.cuda.set_device(device)
                # Weights and gradients go from GPU to GPU, figures and responses lie on the CPU.
                torch.distributed.init_process_group("cpu:gloo,cuda:nccl", device_id=device)
            self.index = PartialState(cpu=device.type == "cpu").process_index

    @property
    def loading_device(self) -> torch.device:
        """Where a base is opened: the parts of one that is sharded go to their devices one by one."""
        return CPU if self.is_sharded else self._device

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

    def turns(self, rows: Sequence[T], *, size: int) -> Iterator[Sequence[T]]:
        """Every so-manieth of the rows, at most ``size`` at a time, for passes of the model.

        Where the base is sharded, empty turns at the end make them as many as any process has: a pass must be
        made in each, or the others wait for this one's shares.
        """
        own = rows[self.index :: self.count]
        most = -(-len(rows) // self.count) if self.is_sharded else len(own)
        for begin in range(0, most, size):
            yield own[begin : begin + size]

    def is_pass_due(self, wanted: bool, /) -> bool:
        """Whether to make another pass of the model: as wanted, or as any process wants of a sharded one."""
        return self.any(wanted) if self.is_sharded else wanted

    def shard(self, model: Any) -> None:
        """Leaves each process its share of the model's frozen blocks where the run is sharded."""
        if self.is_sharded:
            shard_blocks(model, processes=self.count, device=self._device)

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
