"""A flagged sentence through the guard: the default rewriter against the one on torch.

Run: ``python -m benchmarks.rewriter --data DIR``, or with ``GUARDRAIL_DATA`` set; DIR holds
``paradetox/dev.jsonl`` and ``everyday/dev.jsonl``, whose first flagged sentences are taken. Needs the extra
``train`` for the ways that are compared with, and the base (``guardrail models pull``).

Every way runs in a process of its own with the same number of threads. They take turns sentence by sentence,
so that what else the machine does hits all alike: ratios hold on a busy machine, seconds only on an idle one.
Beside the guard's whole path stand the candidates alone, by this package and by transformers' ``generate``,
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
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.measure import Claim, report
from benchmarks.rewriter_side import CONTEXT, GENERATE, TOGETHER, WAYS, WIDTHS
from benchmarks.side import Side
from guardrail import Guard, models
from guardrail_training.runlog import git_commit

ROOT = Path(__file__).parents[1]
SETS = ("paradetox", "everyday")
COLD_STARTS = 5
ROUNDS = 3
PROBE_BYTES = 1 << 29
PROBES = 7

Seconds = dict[str, dict[str, list[float]]]
"""By task, then by way: one figure for each sentence."""


def flagged(folder: Path, *, count: int) -> list[str]:
    """The first so many flagged sentences of each set, the sets by turns."""
    guard, found = Guard(rewriter=None), []
    for name in SETS:
        with (folder / name / "dev.jsonl").open(encoding="utf-8") as file:
            sentences = [json.loads(line)["toxic"] for line in file][: 4 * count]
        verdicts = guard.detect(sentences)
        found.append([s for s, verdict in zip(sentences, verdicts, strict=True) if verdict.flagged][:count])
    return [sentence for pair in zip(*found, strict=True) for sentence in pair]


def in_turns(sides: Mapping[str, Side], tasks: Mapping[str, Sequence[str]], *, sentences: int) -> Seconds:
    """Seconds of each task; ``tasks`` names the ways that do it. Everybody warms up on the first sentence."""
    seconds: Seconds = {task: {way: [] for way in ways} for task, ways in tasks.items()}
    for task, ways in tasks.items():
        for way in ways:
            sides[way].do(f"{task} 0")
        for i in range(sentences):
            for way in ways:
                seconds[task][way].append(sides[way].do(f"{task} {i}").seconds)
    return seconds


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


def line(way: str, task: str, seconds: Sequence[float], than: Sequence[float]) -> dict[str, Any]:
    """One line of the table; ``than`` are the torch path's seconds for the same task."""
    return {
        "task": task,
        "way": way,
        "median s": statistics.median(seconds),
        "p95 s": float(np.quantile(seconds, 0.95)),
        "times as fast as torch": statistics.median(than) / statistics.median(seconds),
    }


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


def claims_of(figures: Mapping[str, float]) -> list[Claim]:
    """What the project promises; a figure that was not measured is left out."""
    bounds = {
        "check of a flagged sentence, median at most .35 s": (0, 0.35),
        "check of a flagged sentence, p95 at most .9 s": (0, 0.9),
        "check at the median, at least 5 times as fast as with torch": (5, np.inf),
        "greedy candidates equal to torch's in float32 (share)": (1, 1),
        "process start to first rewrite, at most 4 s": (0, 4),
        "peak memory at most 550 MB": (0, 550),
        "resident memory at most 450 MB": (0, 450),
        "base on disk at most 100 MB": (0, 100),
        f"check_many of {TOGETHER}, at least 3 times the rate of one after another": (3, np.inf),
        "clean environment that rewrites, base included, at most 350 MB": (0, 350),
    }
    return [
        Claim(name, figures[name], bool(low <= figures[name] <= high))
        for name, (low, high) in bounds.items()
        if name in figures
    ]


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


def main() -> None:
    """Prints seconds, memory and sizes, and which promises they keep."""
    asked, load = read_arguments(), os.getloadavg()[0]
    sentences = flagged(asked.data, count=asked.sentences)
    base = models.require(models.REWRITER_BASE)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "sentences.json").write_text(json.dumps(sentences), encoding="utf-8")

        def side(way: str) -> Side:
            return Side("benchmarks.rewriter_side", way, name, threads=asked.threads)

        rate = bandwidth(asked.threads)
        with side("passes") as passing:
            passing.do("measure")
        cold = cold_starts(folder, threads=asked.threads)
        sides = {way: stack.enter_context(side(way)) for way in (*WAYS, *GENERATE)}
        seconds = in_turns(sides, {"check": WAYS}, sentences=len(sentences))
        served = {way: (sides[way].peak_megabytes, sides[way].resident_megabytes) for way in WAYS}
        seconds |= in_turns(
            sides, {"candidates": WAYS, "greedy": (*WAYS, *GENERATE)}, sentences=len(sentences)
        )
        many = {
            task: [sides["onnx"].do(task).seconds for _ in range(ROUNDS)]
            for task in ("together", "one by one")
        }
        for each in sides.values():
            each.do("write")
        written = {way: json.loads((folder / f"{way}.json").read_text(encoding="utf-8")) for way in sides}
        passes = json.loads((folder / "passes.json").read_text(encoding="utf-8"))
    median = {way: statistics.median(seconds["check"][way]) for way in WAYS}
    base_size = megabytes(base.iterdir())
    figures = {
        "check of a flagged sentence, median at most .35 s": median["onnx"],
        "check of a flagged sentence, p95 at most .9 s": float(np.quantile(seconds["check"]["onnx"], 0.95)),
        "check at the median, at least 5 times as fast as with torch": median["torch"] / median["onnx"],
        "greedy candidates equal to torch's in float32 (share)": share_equal(
            written, "onnx-float32", "torch"
        ),
        "process start to first rewrite, at most 4 s": cold["onnx"]["seconds"],
        "peak memory at most 550 MB": served["onnx"][0],
        "resident memory at most 450 MB": served["onnx"][1],
        "base on disk at most 100 MB": base_size,
        f"check_many of {TOGETHER}, at least 3 times the rate of one after another": statistics.median(
            many["one by one"]
        )
        / statistics.median(many["together"]),
    }
    if asked.install:
        figures["clean environment that rewrites, base included, at most 350 MB"] = (
            installed_megabytes() + base_size
        )
    report(
        "rewriter",
        [
            line(way, task, per_way[way], per_way["torch"])
            for task, per_way in seconds.items()
            for way in per_way
        ],
        claims_of(figures),
        packages=("detox-guardrail", "numpy", "onnxruntime", "tokenizers", "torch", "transformers"),
        settings={
            **{key: value for key, value in vars(asked).items() if key != "data"},
            "sentences_in_all": len(sentences),
            "git": git_commit(),
            "load_average": {"before": load, "after": os.getloadavg()[0]},
            "cold_start": cold,
            "memory_after_checks": {
                way: {"peak_megabytes": peak, "resident_megabytes": resident}
                for way, (peak, resident) in served.items()
            },
            "actions": {way: actions(written[way]) for way in WAYS},
            "greedy_equal_to_torch": {
                way: share_equal(written, way, "torch") for way in sides if way != "torch"
            },
            "memory_bandwidth": {"gigabytes_a_second": rate / 1e9, "context_tokens": CONTEXT},
            "passes": pass_lines(passes, rate),
            "base_megabytes": {
                "pulled": base_size,
                "copy_for_torch": megabytes(models.for_torch(base).iterdir()),
            },
        },
    )


def actions(written: Mapping[str, Any]) -> dict[str, int]:
    """How often each action was taken."""
    taken = [action for key, action in written.items() if key.startswith("check ")]
    return {action: taken.count(action) for action in sorted(set(taken))}


if __name__ == "__main__":
    main()
