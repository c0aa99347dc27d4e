"""One PPO step of this project against trl 0.11.3, whose trainer was the last for encoder-decoder models.

Run: ``python -m benchmarks.ppo --trl-python PATH``, where PATH is the Python of an environment that has

    pip install torch==2.13.0 trl==0.11.3 transformers==4.45.2 peft==0.13.2 accelerate==1.0.1 "numpy<3" rich

Both sides hold a model of FLAN-T5-base's shape with random weights and a LoRA adapter on q and v, computed
in ``--dtype``. They draw a batch of 16 and learn from it in mini-batches of 4, with value function and
reference. The lengths of ``ppo_workload`` are divided by ``--scale``. The sides take turns, each in a process
of its own, and the first step of each is not counted. Claims are about processor seconds, since the machine
may be shared.

In float32 this project takes old log-probabilities and values from sampling (``old_logprobs = "sampled"``),
which it checks in every step; ``--old-logprobs read`` measures it with the pass that this saves. In bfloat16
sampling is too far off by rounding, and they are read. What share of the machine's peak a step reaches, and
in which of its parts, is printed by ``benchmarks.ppo_peak``.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.measure import Claim, report
from benchmarks.ppo_workload import BATCH, MINIBATCH, OLD_LOGPROBS, SEED, SHAPE, Workload
from benchmarks.side import Side, TaskCost
from guardrail_training.runlog import git_commit

TASKS = ("generate", "learn")
TRL_VERSIONS = {"trl": "0.11.3", "transformers": "4.45.2", "peft": "0.13.2", "accelerate": "1.0.1"}


def measured(sides: Mapping[str, Side], *, rounds: int) -> dict[str, dict[str, list[TaskCost]]]:
    """The costs of each task of each side, by side and task; the first round is not counted."""
    costs: dict[str, dict[str, list[TaskCost]]] = {name: {task: [] for task in TASKS} for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            for task in TASKS:
                cost = side.do(task)
                if number:
                    costs[name][task].append(cost)
    return costs


def medians(costs: Sequence[TaskCost]) -> tuple[float, float]:
    """Processor seconds and seconds on the clock."""
    return (
        statistics.median(cost.cpu_seconds for cost in costs),
        statistics.median(cost.seconds for cost in costs),
    )


def row(name: str, costs: Mapping[str, Sequence[TaskCost]], *, peak: float) -> dict[str, Any]:
    """One side's line of the table."""
    generation, learning = (medians(costs[task]) for task in TASKS)
    return {
        "side": name,
        "generation, CPU s": generation[0],
        "update, CPU s": learning[0],
        "step, CPU s": generation[0] + learning[0],
        "step, s": generation[1] + learning[1],
        "peak MB": peak,
    }


def read_arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trl-python", required=True, help="the Python of the environment with trl")
    parser.add_argument("--scale", type=int, default=4, help="what lengths are divided by")
    parser.add_argument("--layers", type=int, default=12, help="layers of encoder and decoder each")
    parser.add_argument("--rows", type=int, nargs="+", default=[MINIBATCH], help="learned from at a time")
    parser.add_argument("--chunk", type=int, default=BATCH, help="responses that trl draws at a time")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--old-logprobs", choices=("read", "sampled"))
    parser.add_argument("--rounds", type=int, default=3, help="counted steps of each side")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    asked.old_logprobs = asked.old_logprobs or OLD_LOGPROBS[asked.dtype]
    return asked


def sides(asked: argparse.Namespace, rows: int, stack: ExitStack) -> dict[str, Side]:
    """Both sides, started, learning from so many responses at a time."""
    shape = ("--scale", str(asked.scale), "--layers", str(asked.layers), "--rows", str(rows))
    shape += ("--dtype", asked.dtype)
    own = Side(
        "benchmarks.ppo_guardrail", *shape, "--old-logprobs", asked.old_logprobs, threads=asked.threads
    )
    trl = Side(
        "benchmarks.ppo_trl",
        *(*shape, "--chunk", str(asked.chunk)),
        threads=asked.threads,
        python=asked.trl_python,
    )
    names = (f"guardrail, {rows} rows at a time", f"trl, {rows} rows at a time")
    return {name: stack.enter_context(side) for name, side in zip(names, (own, trl), strict=True)}


def claims(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, rows: int) -> list[Claim]:
    """What is promised of our line and trl's."""
    speed = theirs["step, CPU s"] / ours["step, CPU s"]
    memory = ours["peak MB"] / theirs["peak MB"]
    return [
        Claim(f"{rows} rows at a time: a step is at least 1.5 times as fast as trl's", speed, speed >= 1.5),
        Claim(f"{rows} rows at a time: at most .7 of trl's peak memory", memory, memory <= 0.7),
    ]


def main() -> None:
    """Prints seconds and peak memory of both sides, and whether this project keeps its promise."""
    asked = read_arguments()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        running: dict[str, Side] = {}
        for rows in asked.rows:
            running |= sides(asked, rows, stack)
        costs = measured(running, rounds=asked.rounds)
        lines = [row(name, costs[name], peak=side.peak_megabytes) for name, side in running.items()]
    workload = Workload.scaled(asked.scale)
    report(
        f"ppo-{asked.dtype}-scale{asked.scale}",
        lines,
        [
            claim
            for number, rows in enumerate(asked.rows)
            for claim in claims(*lines[2 * number : 2 * number + 2], rows=rows)
        ],
        packages=("detox-guardrail", "numpy", "torch", "transformers", "peft"),
        settings={
            **vars(asked),
            "trl_python": TRL_VERSIONS,
            "seed": SEED,
            "git": git_commit(),
            "shape": {**SHAPE, "num_layers": asked.layers},
            "batch": BATCH,
            "minibatch": MINIBATCH,
            "prompt_tokens": sum(map(len, workload.prompts)),
            "response_tokens": sum(workload.limits),
            "load_average": {"before": load, "after": os.getloadavg()[0]},
        },
    )


if __name__ == "__main__":
    main()
