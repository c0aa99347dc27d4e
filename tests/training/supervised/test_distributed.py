"""Two processes with half of each batch take the steps of one with all of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guardrail_training import sft
from guardrail_training.checkpoint import FILENAME
from tests.training.launching import launch
from tests.training.supervised.conftest import small_run
from tests.training.watching import metrics


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "base"), [("torchrun", "t5"), ("accelerate", "t5"), ("fsdp", "t5"), ("fsdp", "llama")]
)
def test_two_processes_train_to_the_losses_and_weights_of_one(
    launcher: str, base: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    # Of eight rows the second batch of a pass has one, so that a process has nothing to do.
    alone = small_run(base, bases[base], tmp_path, batch_size=7, microbatch_size=2, learning_rate=1e-3)
    shared = replace(alone, out=str(tmp_path / "shared"))

    sft.run(alone)
    launch("sft", shared, launcher=launcher)

    one, two = metrics(alone), metrics(shared)
    assert len(one) == len(two) == 6
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, rel=1e-4)
    states = [torch.load(Path(each.out) / FILENAME, weights_only=True) for each in (alone, shared)]
    torch.testing.assert_close(states[0]["weights"], states[1]["weights"], atol=1e-4, rtol=1e-3)
    record = json.loads((Path(shared.out) / "run.json").read_text())
    assert (record["processes"], record["sharded"]) == (2, launcher == "fsdp")
