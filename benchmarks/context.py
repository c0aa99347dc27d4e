"""What judging with context costs, and what it catches: insults that are cut over two or three sentences.

Run: ``python -m benchmarks.context``. One pass is the detector's over the whole text; CPU seconds of the
process. ``split_insults.txt`` holds the insults; each is judged by itself and behind two clean sentences.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.batch import TEXTS
from benchmarks.measure import Claim, report
from benchmarks.prose import PROSE
from benchmarks.texts import cpu_seconds
from guardrail import Action, Guard, Policy, Verdict
from guardrail.detectors.onnx import OnnxDetector

INSULTS = Path(__file__).parent / "split_insults.txt"
LEAD = PROSE[: PROSE.index("In the spring")]
ROUNDS = 5
MAX_PASSES = 2.5
WIDE = 200
"""The context that each segment was judged with when none was left out."""


def insults() -> list[str]:
    """The texts of the set."""
    lines = INSULTS.read_text(encoding="utf-8").splitlines()
    return [line.replace(" / ", " ") for line in lines if line and not line.startswith("#")]


class Unsure:
    """The shipped detector, never sure that a text is clear: every segment is judged with its context."""

    def __init__(self) -> None:
        self._detector = OnnxDetector.shipped()

    def detect(self, texts: list[str]) -> list[Verdict]:
        """Verdicts of the shipped detector without their ``clear``."""
        return [replace(verdict, clear=False) for verdict in self._detector.detect(texts)]


def caught(guard: Guard, texts: list[str]) -> int:
    """How many of the texts do not pass."""
    outcomes = guard.check_many(texts)
    return sum(outcome.action is not Action.PASSED for outcome in outcomes)


def passes(guard: Guard, text: str) -> float:
    """CPU time of a check in units of one pass of the detector over the text."""
    detector = OnnxDetector.shipped()
    detector.detect([text])
    guard.check(text)
    once = min(cpu_seconds(lambda: detector.detect([text])) for _ in range(ROUNDS))
    return min(cpu_seconds(lambda: guard.check(text)) for _ in range(ROUNDS)) / once


def main() -> None:
    """Prints passes over two clean texts and insults caught, by the way of judging with context."""
    ladder = ("mask", "block")
    guards = {
        "alone": Guard(policy=Policy(ladder=ladder, context=0)),
        f"every segment, {WIDE} characters": Guard(
            policy=Policy(ladder=ladder, context=WIDE), detector=Unsure()
        ),
        "default": Guard(policy=Policy(ladder=ladder)),
    }
    short = " ".join(TEXTS)
    rows = [
        {
            "context": name,
            "passes, prose": passes(guard, PROSE),
            "passes, short sentences": passes(guard, short),
            f"caught of {len(insults())}": caught(guard, insults()),
            "caught behind clean text": caught(guard, [LEAD + text for text in insults()]),
        }
        for name, guard in guards.items()
    ]
    _, wide, default = (list(row.values()) for row in rows)
    cost = max(default[1], default[2])
    lost = wide[3] + wide[4] - default[3] - default[4]
    claims = [
        Claim(f"judging with context costs at most {MAX_PASSES:g} passes", cost, cost <= MAX_PASSES),
        Claim(
            "no split insult is lost by it, of those behind nothing and behind clean text", lost, lost <= 0
        ),
    ]
    report("context", rows, claims)


if __name__ == "__main__":
    main()
