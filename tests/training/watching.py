"""Runs under test: what they log, what they keep, and what happens to them at a step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest
import torch

from guardrail.manifest import sha256_of
from guardrail_training.checkpoint import FILENAME
from guardrail_training.runlog import MetricLog

EQUAL_IN_CHECKPOINTS = ("control", "random")


class Run(Protocol):
    """Settings of a run of any trainer."""

    @property
    def out(self) -> str: ...


def metrics(run: Run) -> list[dict[str, Any]]:
    """What a run has logged but for how long it took."""
    rows = [json.loads(line) for line in (Path(run.out) / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in row.items() if key != "seconds" and not key.startswith("time/")}
        for row in rows
    ]


def checkpoint(run: Run) -> dict[str, Any]:
    """The state that a run continues from."""
    state: dict[str, Any] = torch.load(Path(run.out) / FILENAME, weights_only=True)
    return state


def assert_same_run(one: Run, other: Run) -> None:
    """Two runs logged the same, and left the same state and the same adapters, to the bit."""
    assert metrics(one) == metrics(other)
    first, second = checkpoint(one), checkpoint(other)
    for name in ("weights", "optimizer"):
        torch.testing.assert_close(_tensors(first[name]), _tensors(second[name]), atol=0, rtol=0)
    for name in EQUAL_IN_CHECKPOINTS:
        assert (name in first) == (name in second)
        torch.testing.assert_close(first.get(name, 0), second.get(name, 0), atol=0, rtol=0)
    assert adapters(one) == adapters(other) != {}


def adapters(run: Run) -> dict[str, str]:
    """The sha256 of a run's adapters by their step."""
    files = Path(run.out).glob("step-*/adapter_model.safetensors")
    return {path.parent.name: sha256_of(path) for path in files}


def _tensors(state: Mapping[Any, Any]) -> Any:
    return state["state"] if "state" in state else dict(state)


@contextmanager
def interrupting(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, *, at: int, act: Callable[[], Any]
) -> Iterator[None]:
    """Does something once, right after the run's module has logged the losses of one step."""

    class Interrupt(MetricLog):
        def add(self, values: Mapping[str, float], *, step: int) -> None:
            super().add(values, step=step)
            if step == at and "dev_loss" not in values:
                act()

    with monkeypatch.context() as patch:
        patch.setattr(module, "MetricLog", Interrupt)
        yield
