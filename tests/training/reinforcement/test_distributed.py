"""Two processes take the steps of one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from guardrail.errors import ConfigError
from guardrail_training.processes import Processes
from guardrail_training.reinforcement import ppo
from guardrail_training.reinforcement.settings import PpoSettings

REWARD = "length(least=3, most=5) - 0.5 * copy"


def launch(settings: PpoSettings) -> None:
    """The command line in two processes of this machine.

    By torchrun: accelerate's own launcher starts several CPU processes with MPI alone.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {key: value for key, value in asdict(settings).items() if value is not None}
    places = [f"--{key}={values.pop(key)}" for key in ("base", "data", "out")]
    changes = [f"--set={key}={json.dumps(value)}" for key, value in values.items()]
    command = [Path(sys.executable).with_name("guardrail-train"), "ppo", *places, *changes]
    launcher = ["torch.distributed.run", "--nproc_per_node=2", f"--master_port={port}"]
    done = subprocess.run(
        [sys.executable, "-m", *launcher, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def metrics(settings: PpoSettings) -> list[dict[str, Any]]:
    lines = (Path(settings.out) / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


@pytest.mark.slow
def test_two_processes_train_to_the_losses_and_weights_of_one(settings: PpoSettings, tmp_path: Path) -> None:
    alone = replace(settings, steps=2, out=str(tmp_path / "alone"), reward=REWARD)
    shared = replace(alone, out=str(tmp_path / "shared"))

    ppo.run(alone)
    launch(shared)

    one, two = metrics(alone), metrics(shared)
    assert len(one) == len(two) == 2
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, abs=1e-3, rel=1e-3)
    weights = "step-2/adapter_model.safetensors"
    torch.testing.assert_close(
        load_file(Path(alone.out) / weights), load_file(Path(shared.out) / weights), atol=2e-3, rtol=1e-2
    )


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
