"""Rewriters on different bases set against each other: loading, memory, a pass, a greedy rewrite.

Run: ``python -m benchmarks.rewriter_bases --data DIR [--adapters FOLDER ...]``, or with ``GUARDRAIL_DATA``
set; DIR holds ``everyday/train.jsonl``, of which sentences are taken at equal distances. Without
``--adapters`` every shipped adapter is run on its base (``guardrail models pull``). Each has a process of its
own; they take turns, sentence by sentence. ``cpu`` is processor time of all threads, which holds on a busy
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import report
from benchmarks.side import Side, serve
from guardrail import models
from guardrail.rewriters.onnx import OnnxRewriter

WIDTHS = (1, 8, 16)
PASSES = 7


def tasks_of(adapter: Path, sentences: Sequence[str], *, threads: int) -> dict[str, Callable[[], int]]:
    """What the side of one adapter does when it is asked; it must be asked to load first."""
    from benchmarks.rewriter_side import reader_of_widths

    made: dict[str, Any] = {}

    def load() -> int:
        made["rewriter"] = OnnxRewriter.load(adapter, threads=threads)
        return 0

    def greedy(sentence: str) -> int:
        (found,) = made["rewriter"].rewrite([sentence], 1)
        return len(found)

    def passed(width: int) -> int:
        rewriter = made["rewriter"]
        if "read" not in made:
            made["read"] = reader_of_widths(rewriter._base.runtime, rewriter._reader.factors)
        made["read"](width)
        return width

    tasks: dict[str, Callable[[], int]] = {"load": load}
    tasks |= {f"greedy {i}": partial(greedy, sentence) for i, sentence in enumerate(sentences)}
    return tasks | {f"pass {width}": partial(passed, width) for width in WIDTHS}


def sentences_of(folder: Path, *, count: int) -> list[str]:
    """Toxic sentences of the training part, from its beginning to its end."""
    with (folder / "train.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line)["toxic"] for line in file]
    return [rows[i * len(rows) // count] for i in range(count)]


def measured(adapters: Sequence[Path], *, asked: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each adapter."""
    arguments = (
        "--data",
        str(asked.data),
        "--sentences",
        str(asked.sentences),
        "--threads",
        str(asked.threads),
    )
    rows: list[dict[str, object]] = []
    with ExitStack() as stack:
        sides = [
            stack.enter_context(
                Side("benchmarks.rewriter_bases", *arguments, "--side", str(adapter), threads=asked.threads)
            )
            for adapter in adapters
        ]
        loads = [side.do("load") for side in sides]
        for side in sides:
            side.do("greedy 0")  # reads what every prompt begins with
        tasks = [f"greedy {i}" for i in range(asked.sentences)]
        tasks += [f"pass {width}" for width in WIDTHS for _ in range(PASSES)]
        costs: list[dict[str, list[Any]]] = [{} for _ in sides]
        for task in tasks:
            print(task, file=sys.stderr)
            for side, own in zip(sides, costs, strict=True):
                own.setdefault("greedy" if task.startswith("greedy") else task, []).append(side.do(task))
        for adapter, side, loading, own in zip(adapters, sides, loads, costs, strict=True):
            row: dict[str, object] = {
                "adapter": adapter.name,
                "load s": round(loading.seconds, 1),
                "load cpu": round(loading.cpu_seconds, 1),
                "peak MB": round(side.peak_megabytes),
                "resident MB": round(side.resident_megabytes),
            }
            for kind, found in own.items():
                factor, unit = (1, "s") if kind == "greedy" else (1e3, "ms")
                row[f"{kind} {unit}"] = round(factor * statistics.median(c.seconds for c in found), 3)
                row[f"{kind} cpu {unit}"] = round(factor * statistics.median(c.cpu_seconds for c in found), 3)
            rows.append(row)
    return rows


def main() -> None:
    """Compares the adapters, or serves as the side of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("GUARDRAIL_DATA"))
    parser.add_argument("--adapters", type=Path, nargs="+")
    parser.add_argument("--sentences", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("give the folder of everyday/ with --data or in GUARDRAIL_DATA")
    if asked.side is not None:
        sentences = sentences_of(Path(asked.data) / "everyday", count=asked.sentences)
        serve(tasks_of(asked.side, sentences, threads=asked.threads))
        return
    shipped = [models.SHIPPED / "rewriter", *sorted(models.SHIPPED.glob("adapter-*"))]
    rows = measured(asked.adapters or shipped, asked=asked)
    report("rewriter_bases", rows, [])


if __name__ == "__main__":
    main()
