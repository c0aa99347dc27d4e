"""What share of the machine's matrix peak a PPO step reaches, part by part, in float32 and in bfloat16.

Run: ``python -m benchmarks.ppo_peak``; ``--scale 1`` has the lengths of the reference, see ``ppo_workload``.

The peak is what a plain product of two large square matrices reaches in the same process, measured before and
after the step; the greater counts. Operations are counted by torch as they run: products of matrices and
attention, two per multiplication. Padding that is computed counts as done; how many tokens of the passes are
padding is printed beside it. Seconds are the processor's, since the machine may be shared.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from time import process_time
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from benchmarks.measure import report
from benchmarks.ppo_guardrail import GuardrailPpo
from benchmarks.ppo_workload import MINIBATCH, OLD_LOGPROBS, Workload
from guardrail_training.reinforcement.ppo import minibatches
from guardrail_training.reinforcement.rollouts import chunks_by_length
from guardrail_training.runlog import git_commit

DTYPES = ("float32", "bfloat16")
SIDE = 2048
SECONDS = 1.0
PARTS = ("generate", "score", "update")


def peak(dtype: torch.dtype) -> float:
    """Operations per processor second of a product of two large matrices, the best of many."""
    left, right = torch.randn(SIDE, SIDE).to(dtype), torch.randn(SIDE, SIDE).to(dtype)
    torch.mm(left, right)
    fastest, begun = float("inf"), process_time()
    while process_time() - begun < SECONDS:
        started = process_time()
        torch.mm(left, right)
        fastest = min(fastest, process_time() - started)
    return 2 * SIDE**3 / fastest


def operations(task: Callable[[], object]) -> int:
    """What a task multiplies and adds."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    counted: dict[Any, Any] = {fused: _attention, backward: _attention_backward}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        task()
    total: int = counter.get_total_flops()
    return total


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]  # untyped in torch


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    count = sdpa_backward_flop_count(gradient, query, key, value)  # type: ignore[no-untyped-call]  # untyped in torch
    return int(count)


def padding(training: GuardrailPpo, part: str) -> float:
    """The share of tokens that are padding in the passes of scoring or of the update."""
    rollout, settings = training.rollout, training.settings
    asked = rollout.prompts.mask.sum(dim=1)
    groups: list[Tensor] = [torch.arange(len(asked))]
    if part == "update":
        groups = minibatches(len(asked), settings=settings, step=1)
    read = real = 0
    for rows in groups:
        for chunk in chunks_by_length(
            rows,
            rollout.prompts,
            rollout.responses,
            size=settings.microbatch_size,
            pass_cost=training.learner.pass_cost,
        ):
            for lengths in (asked[chunk], rollout.responses.lengths[chunk]):
                read += len(chunk) * int(lengths.max())
                real += int(lengths.sum())
    return 1 - real / read


def measured(training: GuardrailPpo, dtype: str, *, rounds: int) -> list[dict[str, Any]]:
    """A line for each part of a step and one for the whole; the first round counts operations."""
    before = peak(getattr(torch, dtype))
    counts = {part: operations(getattr(training, part)) for part in PARTS}
    seconds: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(rounds):
        for part in PARTS:
            started = process_time()
            getattr(training, part)()
            seconds[part].append(process_time() - started)
    most = max(before, peak(getattr(torch, dtype)))
    medians = {part: statistics.median(seconds[part]) for part in PARTS}
    whole = sum(medians.values())
    lines = []
    for part in (*PARTS, "step"):
        took = medians.get(part, whole)
        done = counts.get(part, sum(counts.values()))
        lines.append(
            {
                "dtype": dtype,
                "part": part,
                "CPU s": took,
                "share of step": took / whole,
                "Gop": done / 1e9,
                "Gop/s": done / took / 1e9,
                "peak Gop/s": most / 1e9,
                "share of peak": done / took / most,
                "padding": padding(training, part) if part in ("score", "update") else "",
                "first ratio's gap": training.gap if part == "score" and training.gap is not None else "",
            }
        )
    return lines


def main() -> None:
    """Prints the table of both formats."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", type=int, default=4, help="what lengths are divided by")
    parser.add_argument("--layers", type=int, default=12, help="layers of encoder and decoder each")
    parser.add_argument("--rows", type=int, default=MINIBATCH, help="learned from at a time")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--old-logprobs", choices=("read", "sampled"))
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for dtype in asked.dtype:
        training = GuardrailPpo(
            Workload.scaled(asked.scale),
            layers=asked.layers,
            rows=asked.rows,
            dtype=dtype,
            old_logprobs=asked.old_logprobs or OLD_LOGPROBS[dtype],
        )
        lines += measured(training, dtype, rounds=asked.rounds)
        del training
    report(
        f"ppo-peak-scale{asked.scale}",
        lines,
        [],
        packages=("detox-guardrail", "numpy", "torch", "transformers", "peft"),
        settings={**vars(asked), "git": git_commit(), "threads": 1},
    )


if __name__ == "__main__":
    main()
