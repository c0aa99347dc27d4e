"""What a guarded stream makes its reader wait, against the same stream unguarded: the shipped detector.

A token is late by two waits. It is held until the sentence that it belongs to is over, which depends on how
fast the source writes; and then the sentence is judged, which depends on the machine. The first is what an
infinitely fast guard would cost, and is measured with a detector that does nothing ("no model").

Run: ``python -m benchmarks.stream``
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from benchmarks.batch import TEXTS
from benchmarks.measure import Claim, report
from benchmarks.overhead import no_op_guard
from guardrail import Guard, Policy

TEXT = " ".join(TEXTS[:12])
TOKENS = re.findall(r"\s?\w+|[^\w\s]|\s", TEXT)
PACES = {"at full speed": 0.0, "50 tokens a second": 1 / 50}
ROUNDS = {"at full speed": 30, "50 tokens a second": 3}


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds between writing and showing: of every token, and of the first of each stream."""

    every: list[float]
    first: list[float]


def written(pace: float, times: list[float]) -> Iterator[str]:
    """The tokens, one every ``pace`` seconds, whether or not they are read; notes when each was written.

    At full speed a token is written when it is asked for.
    """
    started = perf_counter()
    for i, token in enumerate(TOKENS, 1):
        due = started + i * pace
        if pace:
            time.sleep(max(0.0, due - perf_counter()))
        times.append(due if pace else perf_counter())
        yield token


def delays(guard: Guard | None, *, pace: float, rounds: int) -> Delays:
    """The delays of every token of ``rounds`` streams; a token is shown when its last character is."""
    result = Delays([], [])
    ends = np.cumsum([len(token) for token in TOKENS])
    for _ in range(rounds):
        times: list[float] = []
        source = written(pace, times)
        shown, token = 0, 0
        late: list[float] = []
        for piece in source if guard is None else guard.stream(source):
            now = perf_counter()
            shown += len(piece)
            while token < len(ends) and ends[token] <= shown:
                late.append(now - times[token])
                token += 1
        result.every.extend(late)
        result.first.append(late[0])
    return result


def row(pace: str, stream: str, seconds: Delays) -> dict[str, object]:
    """Milliseconds."""
    first, every = (np.percentile(values, [50, 95]) * 1e3 for values in (seconds.first, seconds.every))
    return {
        "pace": pace,
        "stream": stream,
        "first token p50": float(first[0]),
        "first token p95": float(first[1]),
        "each token p50": float(every[0]),
        "each token p95": float(every[1]),
    }


def main() -> None:
    """Prints milliseconds from the writing of a token to its showing, with and without a guard."""
    streams = {
        "unguarded": None,
        "no model": no_op_guard(Policy()),
        "guarded": Guard(rewriter=None),
    }
    streams["guarded"].check(TEXT)  # loads the models
    rows = []
    for pace, seconds in PACES.items():
        measured = {name: delays(guard, pace=seconds, rounds=ROUNDS[pace]) for name, guard in streams.items()}
        rows += [row(pace, name, values) for name, values in measured.items()]
    held, whole = rows[-2]["each token p50"], rows[-1]["each token p50"]
    assert isinstance(held, float)
    assert isinstance(whole, float)
    share = (whole - held) / whole
    claim = "at 50 tokens a second at most a fifth of a token's delay is computing"
    report("stream", rows, [Claim(claim, share, share <= 0.2)])


if __name__ == "__main__":
    main()
