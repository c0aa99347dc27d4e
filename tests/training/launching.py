"""Runs in several processes of this machine, as users start them, and what runs have logged."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE

__all__ = ["LAUNCHERS", "launch"]

FSDP = Path(__file__).parents[2] / "training" / "launch" / "fsdp.yaml"
LAUNCHERS = {
    "torchrun": "torch.distributed.run --nproc_per_node={processes} --master_port={port}",
    # Its launcher for CPUs needs MPI; the one for GPUs starts any processes, and ours stay on the CPU.
    "accelerate": "accelerate.commands.launch --multi_gpu --num_processes={processes} --num_machines=1 "
    "--mixed_precision=no --dynamo_backend=no --main_process_port={port}",
    "fsdp": "accelerate.commands.launch --config_file={fsdp} --main_process_port={port}",
}
TRIES = 5


def launch(trainer: str, settings: Any, *, launcher: str, processes: int = 2) -> None:
    """The command line of a trainer in several processes; again where another process took their port first.

    The ``fsdp`` configuration says itself that there are two.
    """
    values = {key: value for key, value in asdict(settings).items() if value is not None}
    places = [f"--{key}={values.pop(key)}" for key in ("base", "data", "out")]
    changes = [f"--set={key}={json.dumps(value)}" for key, value in values.items()]
    command = [str(Path(sys.executable).with_name("guardrail-train")), trainer, *places, *changes]
    for _ in range(TRIES):
        filled = {"port": free_port(), "processes": processes, "fsdp": FSDP}
        start = [word.format(**filled) for word in LAUNCHERS[launcher].split()]
        done = subprocess.run(
            [sys.executable, "-m", *start, *command],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if "EADDRINUSE" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr


def free_port() -> int:
    """A port that nobody listens at, for now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
