"""Compares the processor time of a text with that of one many times as long."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["FACTOR", "TIMES_AS_MUCH", "long_texts", "min_ratio"]

TIMES_AS_MUCH = 8
FACTOR = 24
"""Between 8, which linear work takes for 8 times the input, and 64, which quadratic work takes."""
MIN_SECONDS = 0.005
TRIES = 3


def min_ratio(work: Callable[[str], object], text: str) -> float:
    """How many times as long the work takes for many times the text; the least of some tries."""

    def seconds(given: str) -> float:
        with _without_collector():
            started = time.process_time()
            work(given)
            return time.process_time() - started

    least = math.inf
    for _ in range(TRIES):  # a busy machine makes single measurements slow
        ratio = seconds(text * TIMES_AS_MUCH) / max(MIN_SECONDS, seconds(text), seconds(text))
        if (least := min(least, ratio)) < FACTOR:
            break
    return least


@contextmanager
def _without_collector() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def long_texts(size: int) -> Iterator[tuple[str, str]]:
    """Clean texts of so many characters, each after what it looks like."""
    sentence = "The weather in the valley is fine today. "
    yield "in sentences", (sentence * (size // len(sentence) + 1))[:size]
    words = "the weather in the valley is fine today and "
    yield "without a mark", (words * (size // len(words) + 1))[:size]
