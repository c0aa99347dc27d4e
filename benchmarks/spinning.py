"""What it costs and brings that the detector's threads wait for work in a loop (``spinning``).

Run: ``python -m benchmarks.spinning``. A paced stream shows the processor time, single checks the latency,
and 16 streams beside processes that keep every core busy the throughput.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from benchmarks.batch import TEXTS
from benchmarks.measure import Claim, report
from benchmarks.prose import PROSE
from benchmarks.texts import cpu_seconds
from guardrail import Guard
from guardrail.detectors.onnx import OnnxDetector

ROUNDS = 3
PACE = 1 / 50
STREAMS = 16
LENGTH = 600


def paced() -> Iterator[str]:
    """The beginning of the prose, four characters at a time, 50 times a second."""
    for start in range(0, LENGTH, 4):
        time.sleep(PACE)
        yield PROSE[start : min(start + 4, LENGTH)]


def busy() -> None:
    """Keeps a core busy."""
    for _ in itertools.count():
        pass


@contextmanager
def busy_machine() -> Iterator[None]:
    """Every core has something else to do."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=busy, daemon=True) for _ in range(os.cpu_count() or 1)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()


def latency(guard: Guard) -> float:
    """Milliseconds of a single check, the median of 64."""
    times = []
    for text in TEXTS:
        started = time.perf_counter()
        guard.check(text)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


def streams_a_second(guard: Guard) -> float:
    """Streams at full speed that 16 threads finish in a second."""
    started = time.perf_counter()
    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(lambda number: list(guard.stream([PROSE[number : LENGTH + number]])), range(STREAMS)))
    return STREAMS / (time.perf_counter() - started)


def main() -> None:
    """Prints processor time, latency and throughput with threads that spin and threads that sleep."""
    guards = {
        name: Guard(detector=OnnxDetector.shipped(spinning=name == "on"), rewriter=None)
        for name in ("off", "on")
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in guards}
    for _ in range(ROUNDS):
        for name, guard in guards.items():
            guard.check(TEXTS[0])
            measured = {
                "CPU seconds of a paced stream": cpu_seconds(lambda guard=guard: list(guard.stream(paced()))),
                "milliseconds a check": latency(guard),
            }
            with busy_machine():
                measured["streams a second, busy machine"] = streams_a_second(guard)
            for figure, value in measured.items():
                found[name].setdefault(figure, []).append(value)
    medians = {
        name: {figure: statistics.median(values) for figure, values in figures.items()}
        for name, figures in found.items()
    }
    cpu = medians["off"]["CPU seconds of a paced stream"] / medians["on"]["CPU seconds of a paced stream"]
    claim = "without spinning a paced stream takes at most three quarters of the processor time"
    report(
        "spinning",
        [{"spinning": name, **figures} for name, figures in medians.items()],
        [Claim(claim, cpu, cpu <= 0.75)],
    )


if __name__ == "__main__":
    main()
