"""What a run shows and leaves: progress bar, run.json, metrics.jsonl, TensorBoard events."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

__all__ = [
    "MetricLog",
    "git_commit",
    "note_seconds",
    "noted_seconds",
    "package_versions",
    "progress_bar",
    "write_run",
]

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "safetensors", "tokenizers", "numpy")
CPUINFO, CPU_NAME = Path("/proc/cpuinfo"), re.compile(r"^model name\s*: (.+)$", re.MULTILINE)


class MetricLog:
    """Appends metrics to ``metrics.jsonl`` and, if it is installed, to TensorBoard.

    A resumed run passes the step it continues from: later rows of the interrupted run are dropped first.
    """

    def __init__(self, folder: str | Path, *, resumed_from: int = 0) -> None:
        self.path = Path(folder) / "metrics.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []
        lines = [line for line in lines if json.loads(line)["step"] <= resumed_from]
        self.path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        self._writer = _tensorboard(folder, purge_step=resumed_from + 1)

    def add(self, values: Mapping[str, float], *, step: int) -> None:
        """Writes one row; it is on disk when this returns."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            if self._writer is not None:
                self._writer.add_scalar(name, value, step)

    def last(self) -> dict[str, float]:
        """The last value of each metric."""
        values: dict[str, float] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            values |= json.loads(line)
        values.pop("step", None)
        return values

    def close(self) -> None:
        """Flushes the TensorBoard events."""
        if self._writer is not None:
            self._writer.close()


def _tensorboard(folder: str | Path, *, purge_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # optional: metrics.jsonl holds the same numbers
        return None
    return SummaryWriter(log_dir=str(folder), purge_step=purge_step)


def write_run(folder: str | Path, *, settings: Any, facts: Mapping[str, Any]) -> Path:
    """Writes ``run.json``: the settings dataclass, versions, git commit, command line, processor, facts."""
    path = Path(folder) / "run.json"
    content = {
        "settings": asdict(settings),
        "versions": package_versions(),
        "git": git_commit(),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "processor": processor(),
        **facts,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def note_seconds(folder: str | Path, seconds: float) -> None:
    """Writes into ``run.json`` how long a run has taken so far."""
    path = Path(folder) / "run.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "seconds": round(seconds, 1)}, indent=1) + "\n", encoding="utf-8")


def noted_seconds(folder: str | Path) -> float:
    """How long the run in a folder has taken, 0 if it does not say."""
    path = Path(folder) / "run.json"
    return float(json.loads(path.read_text(encoding="utf-8")).get("seconds", 0)) if path.is_file() else 0.0


def processor() -> str:
    """What computes: the GPU that torch would take, else the CPU's model; with how many."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    names = CPU_NAME.findall(CPUINFO.read_text(encoding="utf-8")) if CPUINFO.is_file() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} x {name}"


def package_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide a run's numbers."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit of the sources, with ``-dirty`` if tracked files differ; None outside a repository."""
    here = Path(__file__).parent
    try:
        commit = _git("rev-parse", "HEAD", folder=here)
        dirty = _git("status", "--porcelain", "--untracked-files=no", folder=here)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty" if dirty else commit


def _git(*arguments: str, folder: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def progress_bar(metric: str = "loss", *, shown: bool = True) -> Progress:
    """A bar on standard error with steps, elapsed and remaining time; its tasks carry the field named."""
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{metric} {{task.fields[{metric}]:.3f}}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    )
