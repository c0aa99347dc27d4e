"""What ``check_many`` gains over single checks: 64 short clean texts, the shipped detector.

Run: ``python -m benchmarks.batch``
"""

from __future__ import annotations

from benchmarks.measure import Claim, median_seconds, report
from guardrail import Guard

SUBJECTS = (
    "The bus",
    "Our team",
    "This recipe",
    "The museum",
    "My cousin",
    "The report",
    "A neighbour",
    "The choir",
)
ENDS = (
    "arrives at noon.",
    "needs two more days.",
    "was a pleasant surprise.",
    "has moved to the other side of town.",
    "will be ready by Friday.",
    "won a small prize last year.",
    "is looking for volunteers.",
    "sent its thanks to everyone.",
)
TEXTS = [f"{subject} {end}" for subject in SUBJECTS for end in ENDS]
ROUNDS = 9


def main() -> None:
    """Prints seconds for one ``check_many`` and for as many single checks."""
    guard = Guard(rewriter=None)
    cases = {
        "64 single checks": lambda: [guard.check(text) for text in TEXTS],
        "check_many of 64": lambda: guard.check_many(TEXTS),
    }
    seconds = median_seconds(cases, rounds=ROUNDS)
    ratio = seconds["64 single checks"] / seconds["check_many of 64"]
    rows = [{"call": name, "milliseconds": 1e3 * value} for name, value in seconds.items()]
    report("batch", rows, [Claim("check_many at least 3 times as fast", ratio, ratio >= 3)])


if __name__ == "__main__":
    main()
