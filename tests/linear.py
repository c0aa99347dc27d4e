"""Whether work takes time in proportion to its input, measured so that a busy machine does not decide it."""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

__all__ = ["min_seconds", "takes_linear_time"]

TIMES_AS_MUCH = 8
FACTOR = 24
"""Between 8, which linear work takes for 8 times the input, and 64, which quadratic work takes."""


def min_seconds(work: Callable[[], object], *, tries: int = 3) -> float:
    """The least CPU seconds of this thread over some tries, the garbage collector held back."""
    return min(timeit.repeat(work, timer=time.thread_time, number=1, repeat=tries))


def takes_linear_time(work: Callable[[int], Callable[[], object]], *, size: int) -> bool:
    """Whether ``work(8 * size)``, called, takes at most 24 times as long as ``work(size)``, called."""
    small, large = work(size), work(TIMES_AS_MUCH * size)
    return min_seconds(large, tries=2) < FACTOR * max(min_seconds(small), 0.005)
