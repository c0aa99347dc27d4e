"""Where the time of one check goes: the parts of a flagged sentence's way through the default guard.

Run: ``python -m benchmarks.rewriter_profile [--threads 2] [TEXT ...]``. Needs the base (``guardrail models
pull``). Processor seconds of this process, so that they hold on a busy machine; each text is checked three
times and the best is taken. Prints a line for each text and one with their medians.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import guardrail
from guardrail import Guard
from guardrail.detectors.lexicon import Lexicon
from guardrail.detectors.onnx import OnnxDetector
from guardrail.rewriters.onnx import OnnxRewriter

ADAPTER = Path(guardrail.__file__).parent / "shipped" / "rewriter"
TEXTS = (
    "what the hell is wrong with this damn printer ?",
    "That damn dog barked all night.",
    "im not gonna sell the fucking picture , i just want to contribute to the fucking article .",
    "shut up , you stupid idiot , nobody asked you .",
)


class Spent:
    """Processor seconds and calls by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def watch(self, owner: Any, method: str, part: str, size: Callable[..., int] | None = None) -> None:
        """Counts every call of a method from now on; ``size`` of its arguments is summed alongside it."""
        original = getattr(owner, method)

        def counted(*arguments: Any, **named: Any) -> Any:
            started = process_time()
            try:
                return original(*arguments, **named)
            finally:
                self.seconds[part] = self.seconds.get(part, 0.0) + process_time() - started
                self.calls[part] = self.calls.get(part, 0) + (size(*arguments, **named) if size else 1)

        setattr(owner, method, counted)

    def clear(self) -> None:
        """Forgets what was counted."""
        self.seconds.clear()
        self.calls.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="*", default=TEXTS)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    spent = Spent()
    detector, lexicon = OnnxDetector.shipped(threads=options.threads), Lexicon.shipped()
    rewriter = OnnxRewriter.load(ADAPTER, threads=options.threads)
    runtime = rewriter._base.runtime
    spent.watch(runtime, "read", "passes")
    spent.watch(rewriter, "rewrite_marked", "rewrite")
    spent.watch(detector, "detect", "detect")
    spent.watch(detector, "embed", "embed")
    spent.watch(lexicon, "detect", "lexicon")
    guard = Guard(detector=detector, rewriter=rewriter, lexicon=lexicon)
    rows = [profile(guard, spent, text) for text in options.texts]
    for row in rows:
        print(json.dumps(row))
    rewritten = [row for row in rows if "passes" in row]
    parts = (
        {key: round(median(row[key] for row in rewritten), 4) for key in rewritten[0]} if rewritten else {}
    )
    print(json.dumps({"median of those that were flagged": parts}))


def profile(guard: Guard, spent: Spent, text: str) -> dict[str, float]:
    """The best of three checks: seconds by part, and how often each was called."""
    guard.check(text)
    best: dict[str, float] = {}
    for _ in range(3):
        spent.clear()
        started = process_time()
        guard.check(text)
        total = process_time() - started
        if not best or total < best["total"]:
            parts = {part: round(seconds, 4) for part, seconds in sorted(spent.seconds.items())}
            calls = {f"{part} calls": count for part, count in sorted(spent.calls.items())}
            best = {"total": round(total, 4), **parts, **calls}
    return best


if __name__ == "__main__":
    main()
