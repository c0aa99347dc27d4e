"""Supervised fine-tuning of this project against transformers' Trainer with dynamic padding, tokens a second.

Run: ``python -m benchmarks.sft``. Both train the same adapter on the same base, pairs and batch size, with
AdamW; one pass over the pairs is a round, the sides take turns, each in a process of its own, and the first
round is not counted. Tokens are those of prompts and targets, without padding. Claims are about processor
seconds, since the machine may be shared.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measure import Claim, report
from benchmarks.sft_workload import SETTINGS
from benchmarks.side import Side, TaskCost
from guardrail_training.runlog import git_commit

SIDES = {"guardrail": "benchmarks.sft_guardrail", "Trainer": "benchmarks.sft_trainer"}


def measured(sides: Mapping[str, Side], *, rounds: int) -> dict[str, list[TaskCost]]:
    """The cost of each round of each side; the first is not counted."""
    costs: dict[str, list[TaskCost]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            cost = side.do("train")
            if number:
                costs[name].append(cost)
    return costs


def row(name: str, dtype: str, costs: Sequence[TaskCost], *, peak: float) -> dict[str, Any]:
    """One side's line of the table."""
    return {
        "side": name,
        "dtype": dtype,
        "tokens a CPU s": statistics.median(cost.tokens / cost.cpu_seconds for cost in costs),
        "tokens a s": statistics.median(cost.tokens / cost.seconds for cost in costs),
        "tokens": costs[0].tokens,
        "peak MB": peak,
    }


def compared(dtype: str, *, batches: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    """Both sides' lines of the table."""
    shape = ("--dtype", dtype, "--batches", str(batches))
    with (
        Side(SIDES["guardrail"], *shape, threads=threads) as own,
        Side(SIDES["Trainer"], *shape, threads=threads) as trainer,
    ):
        sides = {"guardrail": own, "Trainer": trainer}
        costs = measured(sides, rounds=rounds)
        return [row(name, dtype, costs[name], peak=side.peak_megabytes) for name, side in sides.items()]


def main() -> None:
    """Prints tokens a second and peak memory of both sides, and whether this project keeps its promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batches", type=int, default=4, help="batches of 16 pairs in a round")
    parser.add_argument("--rounds", type=int, default=3, help="counted passes of each side")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    rows, claims = [], []
    for dtype in ("float32", "bfloat16"):
        pair = compared(dtype, batches=asked.batches, rounds=asked.rounds, threads=asked.threads)
        ratio = pair[0]["tokens a CPU s"] / pair[1]["tokens a CPU s"]
        rows += pair
        claims.append(Claim(f"{dtype}: at least 1.3 times the tokens a second", ratio, ratio >= 1.3))
    report(
        "sft",
        rows,
        claims,
        packages=("detox-guardrail", "numpy", "torch", "transformers", "peft"),
        settings={
            **vars(asked),
            "base": SETTINGS.base,
            "batch": SETTINGS.batch_size,
            "seed": SETTINGS.seed,
            "git": git_commit(),
            "load_average": {"before": load, "after": os.getloadavg()[0]},
        },
    )


if __name__ == "__main__":
    main()
