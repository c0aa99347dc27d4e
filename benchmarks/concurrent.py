"""What coroutines and threads lose against ``check_many``: 64 short clean texts, the shipped detector.

Run: ``python -m benchmarks.concurrent``
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from benchmarks.batch import TEXTS
from benchmarks.measure import Claim, median_seconds, report
from guardrail import Guard, Policy

ROUNDS = 9
THREADS = 16


async def together(guard: Guard) -> None:
    """All texts at once."""
    await asyncio.gather(*map(guard.acheck, TEXTS))


async def one_by_one(guard: Guard) -> None:
    """Each text when the one before it is done."""
    for text in TEXTS:
        await guard.acheck(text)


def in_threads(guard: Guard) -> None:
    """Each text in one of THREADS plain threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(guard.check, TEXTS))


def main() -> None:
    """Prints milliseconds for 64 texts in every way of checking them, and throughput against check_many."""
    guard = Guard(rewriter=None)
    hurried = guard.with_policy(Policy(batch_wait=0.0))
    cases = {
        "check_many": lambda: guard.check_many(TEXTS),
        "64 concurrent acheck": lambda: asyncio.run(together(guard)),
        "64 concurrent acheck, zero wait": lambda: asyncio.run(together(hurried)),
        "acheck one after another": lambda: asyncio.run(one_by_one(guard)),
        "acheck one after another, zero wait": lambda: asyncio.run(one_by_one(hurried)),
        "check one after another": lambda: [guard.check(text) for text in TEXTS],
        f"check in {THREADS} threads": lambda: in_threads(guard),
    }
    seconds = median_seconds(cases, rounds=ROUNDS)
    throughput = {name: seconds["check_many"] / value for name, value in seconds.items()}
    rows = [
        {"call": name, "milliseconds": 1e3 * value, "throughput": throughput[name]}
        for name, value in seconds.items()
    ]
    ratio = throughput["64 concurrent acheck"]
    report("concurrent", rows, [Claim("at least .8 of check_many's throughput", ratio, ratio >= 0.8)])


if __name__ == "__main__":
    main()
