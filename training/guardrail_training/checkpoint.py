"""The state of a run on disk, from which it continues bit for bit, and the signals that stop one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from guardrail.errors import ConfigError

__all__ = ["FILENAME", "Stateful", "StopRequest", "load_checkpoint", "save_checkpoint", "stop_on_signals"]

FILENAME = "checkpoint.pt"


class Stateful(Protocol):
    """Something else that a run carries from step to step."""

    def state_dict(self) -> dict[str, float]: ...
    def load_state_dict(self, state: dict[str, float], /) -> None: ...


def save_checkpoint(
    folder: str | Path,
    *,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
    control: Stateful | None = None,
    kept: Stateful | None = None,
) -> Path:
    """Writes trainable weights, optimizer, random state and position; replaces the last one in a single move.

    The learning rate and the order of the examples are functions of step and seed, so they need no state;
    ``control`` is what does, and ``kept`` is what is known of earlier models. ``fingerprint`` names the
    settings and data that the run depends on.
    """
    path = Path(folder) / FILENAME
    part = path.with_suffix(".part")
    state = {
        "step": step,
        "fingerprint": fingerprint,
        "weights": _on_cpu(dict(_trainable(model))),
        "optimizer": _on_cpu(optimizer.state_dict()),
        "random": torch.get_rng_state(),
        "device_random": _device_random(model),
        "control": control.state_dict() if control is not None else {},
        "kept": kept.state_dict() if kept is not None else {},
    }
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return path


def load_checkpoint(
    folder: str | Path,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fingerprint: str,
    control: Stateful | None = None,
    kept: Stateful | None = None,
) -> int:
    """Puts the saved state back and returns the step it was taken after; 0 if there is no checkpoint.

    Raises ConfigError if the checkpoint belongs to other settings or data.
    """
    path = Path(folder) / FILENAME
    if not path.is_file():
        return 0
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    if state["fingerprint"] != fingerprint:
        raise ConfigError(
            f"{path} belongs to a run with other settings or data; choose another --out or remove it"
        )
    with torch.no_grad():
        for name, parameter in _trainable(model):
            parameter.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if state.get("device_random") is not None and (module := _device_module(model)) is not None:
        module.set_rng_state(state["device_random"])
    if control is not None:
        control.load_state_dict(state["control"])
    if kept is not None:
        kept.load_state_dict(state["kept"])
    return int(state["step"])


def _on_cpu(value: Any) -> Any:
    """The value with its tensors on the CPU: a state can be opened on any machine."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(each) for key, each in value.items()}
    return [_on_cpu(each) for each in value] if isinstance(value, list) else value


def _device_module(model: nn.Module) -> Any:
    """torch's module of the device that a model is on, such as torch.cuda; None for the CPU."""
    kinds = {parameter.device.type for parameter in model.parameters()} - {"cpu"}
    return getattr(torch, kinds.pop(), None) if kinds else None


def _device_random(model: nn.Module) -> Tensor | None:
    module = _device_module(model)
    return module.get_rng_state() if hasattr(module, "get_rng_state") else None


def _trainable(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


@dataclass(slots=True)
class StopRequest:
    """Whether a signal asked the run to stop after the step it is in."""

    signal: str | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turns SIGINT and SIGTERM into a request while inside, then restores what was there."""
    request = StopRequest()

    def note(number: int, _frame: object) -> None:
        request.signal = signal.Signals(number).name

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
