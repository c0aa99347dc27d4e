"""Waiting for what other threads, tasks and processes bring about, however slow or busy the machine is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

__all__ = ["PATIENCE", "until", "wait_until"]

PATIENCE = 1200.0
"""Seconds after which a test takes what it waits for to hang; none comes near it otherwise."""
PAUSE = 0.001


def wait_until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds; AssertionError where it never does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(PAUSE)


async def until(condition: Callable[[], object]) -> None:
    """The same for coroutines."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(PAUSE)
