"""Two processes take the steps of one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from guardrail.errors import ConfigError
from guardrail_training.processes import Processes
from guardrail_training.reinforcement import ppo
from guardrail_training.reinforcement.settings import PpoSettings
from tests.training.launching import launch
from tests.training.watching import metrics

REWARD = "length(least=3, most=5) - 0.5 * copy"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "base"),
    [
        ("torchrun", "causal"),
        ("torchrun", "encoder-decoder"),
        ("accelerate", "causal"),
        ("fsdp", "causal"),
        ("fsdp", "encoder-decoder"),
    ],
    indirect=["base"],
)
def test_two_processes_train_to_the_losses_and_weights_of_one(
    launcher: str, settings: PpoSettings, tmp_path: Path
) -> None:
    # Responses have limits of their own, so that one process is done with sampling before the other.
    alone = replace(settings, steps=2, min_limit=2, out=str(tmp_path / "alone"), reward=REWARD)
    shared = replace(alone, out=str(tmp_path / "shared"))

    ppo.run(alone)
    launch("ppo", shared, launcher=launcher)

    one, two = metrics(alone), metrics(shared)
    assert len(one) == len(two) == 2
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, abs=1e-3, rel=1e-3)
    weights = "step-2/adapter_model.safetensors"
    torch.testing.assert_close(
        load_file(Path(alone.out) / weights), load_file(Path(shared.out) / weights), atol=2e-3, rtol=1e-2
    )
    record = json.loads((Path(shared.out) / "run.json").read_text())
    assert (record["processes"], record["sharded"]) == (2, launcher == "fsdp")


def test_alone_everything_is_ones_own() -> None:
    processes = Processes()

    assert processes.is_first
    assert list(processes.own(range(5))) == [0, 1, 2, 3, 4]
    assert processes.gather("part") == ["part"]
    assert processes.any(True)
    assert not processes.any(False)
    processes.require_multiple(7, setting="batch_size")


def test_rows_that_two_processes_cannot_share_are_an_error() -> None:
    processes = Processes()
    processes.count = 2

    with pytest.raises(ConfigError, match="batch_size must be a multiple of the 2 processes, got 7"):
        processes.require_multiple(7, setting="batch_size")
