"""What a guard costs by itself: a clean text and a detector that does nothing.

Run: ``python -m benchmarks.overhead``
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import Claim, median_seconds, report
from guardrail import Guard, Policy, Verdict

TEXT = "The library opens at nine and closes at six on weekdays."
CALLS = 500
ROUNDS = 21
CLEAN = Verdict({"toxicity": 0.0}, flagged=False)


def nothing_found(texts: Sequence[str]) -> list[Verdict]:
    """A detector without a model."""
    return [CLEAN] * len(texts)


def no_op_guard(policy: Policy) -> Guard:
    """A guard whose cost is its own."""
    return Guard(policy=policy, detector=nothing_found, lexicon=nothing_found, rewriter=None)


def main() -> None:
    """Prints microseconds per call, inline and under a deadline."""
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
