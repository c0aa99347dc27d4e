"""One side of a comparison in a process of its own, so that two libraries can be set against each other.

The side's program calls ``serve`` with what it can do; the program that compares starts it as a ``Side`` and
asks for one thing at a time. Peak memory is then that of one side alone, and sides may take turns. Needs the
standard library alone: a side may run in another virtual environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from types import TracebackType

__all__ = ["Side", "TaskCost", "memory", "serve"]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class TaskCost:
    """What a task took: seconds on the clock and on the processor, and the tokens that it says it handled."""

    seconds: float
    cpu_seconds: float
    tokens: int


def serve(tasks: Mapping[str, Callable[[], int]]) -> None:
    """Does what is asked for, a task's name per line, until nothing more is asked; a task returns its tokens.

    Answers on the real standard output. What libraries print goes to standard error.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    sys.stdout = sys.stderr
    for line in sys.stdin:
        started, cpu_started = perf_counter(), process_time()
        tokens = tasks[line.strip()]()
        answer = {
            "seconds": perf_counter() - started,
            "cpu_seconds": process_time() - cpu_started,
            "tokens": tokens,
            **memory(),
        }
        print(json.dumps(answer), file=answers, flush=True)


def memory() -> dict[str, float]:
    """The most memory that this process has held so far, and what it holds now.

    Not from ``getrusage``: its peak begins with what the program that started this one held.
    """
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kilobytes = {name: int(lines[name].split()[0]) for name in ("VmHWM", "VmRSS")}
    return {
        "peak_megabytes": kilobytes["VmHWM"] * 1024 / 1e6,
        "resident_megabytes": kilobytes["VmRSS"] * 1024 / 1e6,
    }


class Side:
    """A running side, started as ``python -m MODULE ARGUMENTS`` with so many threads.

    ``peak_megabytes`` is the most memory that it has held so far, its libraries included;
    ``resident_megabytes`` what it held after the last task.
    """

    def __init__(
        self, module: str, *arguments: str, threads: int, python: str = sys.executable, quiet: bool = True
    ) -> None:
        self.peak_megabytes = self.resident_megabytes = 0.0
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if quiet else None,
            text=True,
        )

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def do(self, task: str) -> TaskCost:
        """Has one task done; RuntimeError if the side has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{task}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended during {task!r}; run it by hand to see why")
        answer = json.loads(line)
        self.peak_megabytes = answer.pop("peak_megabytes")
        self.resident_megabytes = answer.pop("resident_megabytes")
        return TaskCost(**answer)
