"""Two processes with half of each batch take the steps of one with all of it."""

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

from guardrail_training import sft
from guardrail_training.checkpoint import FILENAME
from guardrail_training.sft import SftSettings
from tests.training.supervised.conftest import small_run

LAUNCHERS = {
    "torchrun": "torch.distributed.run --nproc_per_node=2 --master_port={port}",
    # Its launcher for CPUs needs MPI; the one for GPUs starts any processes, and ours stay on the CPU.
    "accelerate": "accelerate.commands.launch --multi_gpu --num_processes=2 --num_machines=1 "
    "--mixed_precision=no --dynamo_backend=no --main_process_port={port}",
}


def launch(settings: SftSettings, launcher: str) -> None:
    """The command line in two processes of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    values = {key: value for key, value in asdict(settings).items() if value is not None}
    places = [f"--{key}={values.pop(key)}" for key in ("base", "data", "out")]
    changes = [f"--set={key}={json.dumps(value)}" for key, value in values.items()]
    command = [Path(sys.executable).with_name("guardrail-train"), "sft", *places, *changes]
    done = subprocess.run(
        [sys.executable, "-m", *launcher.format(port=port).split(), *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def metrics(settings: SftSettings) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (Path(settings.out) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_to_the_losses_and_weights_of_one(
    launcher: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    # Of eight rows the second batch of a pass has one, so that a process has nothing to do.
    alone = small_run("t5", bases["t5"], tmp_path, batch_size=7, microbatch_size=2, learning_rate=1e-3)
    shared = replace(alone, out=str(tmp_path / "shared"))

    sft.run(alone)
    launch(shared, LAUNCHERS[launcher])

    one, two = metrics(alone), metrics(shared)
    assert len(one) == len(two) == 6
    for first, second in zip(one, two, strict=True):
        assert second == pytest.approx(first, rel=1e-4)
    states = [torch.load(Path(each.out) / FILENAME, weights_only=True) for each in (alone, shared)]
    torch.testing.assert_close(states[0]["weights"], states[1]["weights"], atol=1e-4, rtol=1e-3)
