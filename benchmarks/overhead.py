"""What a guard costs by itself: a clean text and a detector that does nothing.

Run: ``python -m benchmarks.overhead``. With ``--against FOLDER`` it takes turns with another checkout, so
that how fast the machine happens to be does not decide.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Claim, median_seconds, report
from guardrail import Guard, Policy, Verdict

TEXT = "The library opens at nine and closes at six on weekdays."
CALLS = 500
ROUNDS = 21
TURNS = 10
ALONE = """
from time import process_time
from benchmarks.overhead import TEXT, no_op_guard
from guardrail import Policy
guard = no_op_guard(Policy(detect_timeout=None))
def seconds():
    started = process_time()
    for _ in range(100):
        guard.check(TEXT)
    return process_time() - started
seconds()
print(min(seconds() for _ in range(25)) / 100)
"""
"""A program for any checkout: CPU seconds of one inline call."""
CLEAN = Verdict({"toxicity": 0.0}, flagged=False)


def nothing_found(texts: Sequence[str]) -> list[Verdict]:
    """A detector without a model."""
    return [CLEAN] * len(texts)


def no_op_guard(policy: Policy) -> Guard:
    """A guard whose cost is its own."""
    return Guard(policy=policy, detector=nothing_found, lexicon=nothing_found, rewriter=None)


def seconds_in(checkout: Path) -> float:
    """CPU seconds of one inline call in a process of its own, with the guard of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(
        command, env=environment, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout)


def compare(other: Path) -> None:
    """Prints CPU microseconds of an inline call here and in another checkout, and their ratio."""
    here = Path(__file__).parents[1]
    turns = [(seconds_in(here), seconds_in(other)) for _ in range(TURNS)]
    for name, seconds in zip(("here", "there"), zip(*turns, strict=True), strict=True):
        print(f"{name}: {1e6 * statistics.median(seconds):.1f} microseconds of CPU time a call")
    print(f"ratio, median of {TURNS} turns: {statistics.median(ours / theirs for ours, theirs in turns):.3f}")


def main() -> None:
    """Prints microseconds per call, inline and under a deadline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, help="a checkout of another commit")
    if other := parser.parse_args().against:
        compare(other.resolve())
        return
    inline = no_op_guard(Policy(detect_timeout=None))
    timed = no_op_guard(Policy())

    def repeat(guard: Guard) -> None:
        for _ in range(CALLS):
            guard.check(TEXT)

    seconds = median_seconds(
        {"inline": lambda: repeat(inline), "deadline": lambda: repeat(timed)}, rounds=ROUNDS
    )
    micros = {name: 1e6 * value / CALLS for name, value in seconds.items()}
    claims = [
        Claim("inline, at most 50 microseconds a call", micros["inline"], micros["inline"] <= 50),
        Claim(
            "with a deadline, at most 200 microseconds a call", micros["deadline"], micros["deadline"] <= 200
        ),
    ]
    report(
        "overhead", [{"guard": name, "microseconds a call": value} for name, value in micros.items()], claims
    )


if __name__ == "__main__":
    main()
