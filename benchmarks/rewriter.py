"""A flagged sentence through the guard: the default rewriter against the one on torch.

Run: ``python -m benchmarks.rewriter --data DIR``, or with ``GUARDRAIL_DATA`` set; DIR holds
``paradetox/dev.jsonl`` and ``everyday/dev.jsonl``, whose first flagged sentences are taken. Needs the extra
``train`` for the ways that are compared with, and the base (``guardrail models pull``).

Every way runs in a process of its own with the same number of threads. They take turns sentence by sentence,
so that what else the machine does hits all alike. Seconds hold on an idle machine only. On a busy one compare
processor seconds with ``--threads 1``: torch's threads wait for each other in a loop, which costs more the
busier the machine is.
Alongside the whole path stand the candidates alone, by this package and by transformers' ``generate``,
with and without prompt lookup. ``--install`` also installs the package into a fresh environment for its size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.measure import Claim, report
from benchmarks.rewriter_side import GENERATE, TOGETHER, WAYS, WIDTHS
from benchmarks.side import Side, TaskCost
from guardrail import Guard, models
from guardrail_training.runlog import git_commit

ROOT = Path(__file__).parents[1]
SETS = ("paradetox", "everyday")
COLD_STARTS = 3
ROUNDS = 3
PROBE_BYTES = 1 << 29
PROBES = 7

Costs = dict[str, dict[str, list[TaskCost]]]
"""By task, then by way: one for each sentence."""


@dataclass(frozen=True, slots=True)
class RewriterMeasurement:
    """What the ways took and wrote, by way where nothing else is said.

    ``served`` is memory after all checks, ``cold`` that of a process with one rewrite, with its seconds.
    ``many`` has seconds by task, ``equal`` shares of greedy candidates, ``passes`` figures by precision.
    """

    costs: Costs
    served: Mapping[str, Mapping[str, float]]
    cold: Mapping[str, Mapping[str, float]]
    many: Mapping[str, Sequence[float]]
    equal: Mapping[str, float]
    actions: Mapping[str, Mapping[str, int]]
    passes: Mapping[str, Mapping[str, float]]


def flagged(folder: Path, *, count: int) -> list[str]:
    """The first so many flagged sentences of each set, the sets by turns."""
    guard, found = Guard(rewriter=None), []
    for name in SETS:
        with (folder / name / "dev.jsonl").open(encoding="utf-8") as file:
            sentences = [json.loads(line)["toxic"] for line in file]
        verdicts = guard.detect(sentences)
        found.append([s for s, verdict in zip(sentences, verdicts, strict=True) if verdict.flagged][:count])
    return [sentence for pair in zip(*found, strict=True) for sentence in pair]


def in_turns(sides: Mapping[str, Side], tasks: Mapping[str, Sequence[str]], *, sentences: int) -> Costs:
    """What each task costs; ``tasks`` names the ways that do it. Everybody warms up on the first sentence."""
    costs: Costs = {task: {way: [] for way in ways} for task, ways in tasks.items()}
    for task, ways in tasks.items():
        for way in ways:
            sides[way].do(f"{task} 0")
        for i in range(sentences):
            print(f"{task}: sentence {i + 1} of {sentences}", file=sys.stderr)
            for way in ways:
                costs[task][way].append(sides[way].do(f"{task} {i}"))
    return costs


def cold_starts(folder: Path, *, threads: int) -> dict[str, dict[str, float]]:
    """Seconds from the start of a process to its first rewrite, and its memory then; medians."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(COLD_STARTS):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.rewriter_side", way, str(folder), "--cold"]
            started = perf_counter()
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                check=True,
            )
            found[way].append(json.loads(done.stdout) | {"seconds": perf_counter() - started})
    return {
        way: {key: statistics.median(start[key] for start in starts) for key in starts[0]}
        for way, starts in found.items()
    }


def bandwidth(threads: int) -> float:
    """Bytes a second at which so many threads read memory: the best of several probes."""
    parts = np.array_split(np.ones(PROBE_BYTES // 8), threads)
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(PROBES):
            started = perf_counter()
            list(pool.map(np.sum, parts))
            rates.append(PROBE_BYTES / (perf_counter() - started))
    return max(rates)


def installed_megabytes() -> float:
    """The size of a fresh environment with this package, pip included."""
    with tempfile.TemporaryDirectory() as name:
        venv.create(name, with_pip=True)
        subprocess.run([f"{name}/bin/pip", "install", "--quiet", str(ROOT)], check=True)
        return megabytes(Path(name).rglob("*"))


def megabytes(paths: Iterable[Path]) -> float:
    """The size of the files among these paths."""
    return sum(path.stat().st_size for path in paths if path.is_file() and not path.is_symlink()) / 1e6


def share_equal(written: Mapping[str, Mapping[str, Any]], way: str, other: str) -> float:
    """The share of sentences whose greedy candidate is the same."""
    asked = [key for key in written[other] if key.startswith("greedy ")]
    return sum(written[way][key] == written[other][key] for key in asked) / len(asked)


def line(way: str, task: str, costs: Sequence[TaskCost], than: Sequence[TaskCost]) -> dict[str, Any]:
    """One line of the table; ``than`` is what the same task costs with torch."""
    return {
        "task": task,
        "way": way,
        "median s": median_seconds_of(costs),
        "p95 s": late_seconds_of(costs),
        "median CPU s": statistics.median(cost.cpu_seconds for cost in costs),
        "p95 CPU s": float(np.quantile([cost.cpu_seconds for cost in costs], 0.95)),
        "times as fast as torch": median_seconds_of(than) / median_seconds_of(costs),
    }


def median_seconds_of(costs: Sequence[TaskCost]) -> float:
    """Seconds on the clock that half of the sentences took at most."""
    return statistics.median(cost.seconds for cost in costs)


def late_seconds_of(costs: Sequence[TaskCost]) -> float:
    """Seconds on the clock that 19 in 20 sentences took at most."""
    return float(np.quantile([cost.seconds for cost in costs], 0.95))


def pass_lines(found: Mapping[str, Mapping[str, float]], rate: float) -> list[dict[str, Any]]:
    """What a pass costs beside what reading its weights from memory must cost."""
    return [
        {
            "precision": precision,
            **{f"ms for {width} tokens": figures[str(width)] for width in WIDTHS},
            "MB read": figures["bytes"] / 1e6,
            "ms by bandwidth": 1e3 * figures["bytes"] / rate,
            "times the bound": figures["1"] / (1e3 * figures["bytes"] / rate),
        }
        for precision, figures in found.items()
    ]


def claims_of(found: RewriterMeasurement, *, sizes: Mapping[str, float]) -> list[Claim]:
    """What the project promises, and what was measured; what this run could not measure is left out."""
    check = found.costs["check"]
    median, torch = median_seconds_of(check["onnx"]), median_seconds_of(check["torch"])
    served = found.served["onnx"]
    rate = statistics.median(found.many["one by one"]) / statistics.median(found.many["together"])
    promises = [
        ("check of a flagged sentence, median at most .35 s", median, 0, 0.35),
        ("check of a flagged sentence, p95 at most .9 s", late_seconds_of(check["onnx"]), 0, 0.9),
        ("check at the median, at least 5 times as fast as with torch", torch / median, 5, np.inf),
        ("greedy candidates equal to torch's in float32 (share)", found.equal["onnx-float32"], 1, 1),
        ("process start to first rewrite, at most 4 s", found.cold["onnx"]["seconds"], 0, 4),
        ("peak memory at most 550 MB", served["peak_megabytes"], 0, 550),
        ("resident memory at most 450 MB", served["resident_megabytes"], 0, 450),
        ("base on disk at most 100 MB", sizes["base"], 0, 100),
    ]
    if len(check["onnx"]) >= TOGETHER:
        name = f"check_many of {TOGETHER}, at least 3 times the rate of one after another"
        promises.append((name, rate, 3, np.inf))
    if "environment" in sizes:
        promises.append(("clean environment that rewrites, at most 350 MB", sizes["environment"], 0, 350))
    return [Claim(name, figure, bool(low <= figure <= high)) for name, figure, low, high in promises]


def read_arguments() -> argparse.Namespace:
    """The arguments of the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("GUARDRAIL_DATA"))
    parser.add_argument("--sentences", type=int, default=50, help="of each of the two sets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--install", action="store_true", help="measure a fresh environment, too")
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("give the folder of paradetox/ and everyday/ with --data or in GUARDRAIL_DATA")
    asked.data = Path(asked.data)
    return asked


def measure(sentences: Sequence[str], *, threads: int) -> RewriterMeasurement:
    """Everything that the ways are asked for."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "sentences.json").write_text(json.dumps(sentences), encoding="utf-8")

        def start(way: str) -> Side:
            return Side("benchmarks.rewriter_side", way, name, threads=threads)

        def written(way: str) -> Any:
            return json.loads((folder / f"{way}.json").read_text(encoding="utf-8"))

        with start("passes") as side:
            side.do("measure")
        cold = cold_starts(folder, threads=threads)
        sides = {way: stack.enter_context(start(way)) for way in (*WAYS, *GENERATE)}
        costs = in_turns(sides, {"check": WAYS}, sentences=len(sentences))
        served = {
            way: {
                "peak_megabytes": sides[way].peak_megabytes,
                "resident_megabytes": sides[way].resident_megabytes,
            }
            for way in WAYS
        }
        costs |= in_turns(sides, {"candidates": WAYS, "greedy": (*WAYS, *GENERATE)}, sentences=len(sentences))
        many: dict[str, list[float]] = {"together": [], "one by one": []}
        for _ in range(ROUNDS):
            for task, seconds in many.items():
                seconds.append(sides["onnx"].do(task).seconds)
        for side in sides.values():
            side.do("write")
        wrote = {way: written(way) for way in sides}
        return RewriterMeasurement(
            costs=costs,
            served=served,
            cold=cold,
            many=many,
            equal={way: share_equal(wrote, way, "torch") for way in sides if way != "torch"},
            actions={way: actions(wrote[way]) for way in WAYS},
            passes=written("passes"),
        )


def main() -> None:
    """Prints seconds, memory and sizes, and which promises they keep."""
    asked, load = read_arguments(), os.getloadavg()[0]
    sentences = flagged(asked.data, count=asked.sentences)
    rate = bandwidth(asked.threads)
    found = measure(sentences, threads=asked.threads)
    base = models.require(models.REWRITER_BASE)
    sizes = {"base": megabytes(base.iterdir()), "copy_for_torch": megabytes(models.for_torch(base).iterdir())}
    if asked.install:
        sizes["environment"] = installed_megabytes()
    report(
        "rewriter",
        [line(way, task, costs[way], costs["torch"]) for task, costs in found.costs.items() for way in costs],
        claims_of(found, sizes=sizes),
        packages=("detox-guardrail", "numpy", "onnxruntime", "tokenizers", "torch", "transformers"),
        settings={
            "sentences": len(sentences),
            "threads": asked.threads,
            "git": git_commit(),
            "load_average": {"before": load, "after": os.getloadavg()[0]},
            "megabytes": sizes,
            "cold_start": found.cold,
            "memory_after_checks": found.served,
            "actions": found.actions,
            "greedy_equal_to_torch": found.equal,
            "memory_gigabytes_a_second": rate / 1e9,
            "passes": pass_lines(found.passes, rate),
        },
    )


def actions(written: Mapping[str, Any]) -> dict[str, int]:
    """How often each action was taken."""
    taken = [action for key, action in written.items() if key.startswith("check ")]
    return {action: taken.count(action) for action in sorted(set(taken))}


if __name__ == "__main__":
    main()
