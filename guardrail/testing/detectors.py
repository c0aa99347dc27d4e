"""Detectors that the checks give to a guard: one that notes what it reads, ones that fail and hang."""

from __future__ import annotations

import threading
from collections.abc import Callable

from guardrail.testing.harness import Detect

__all__ = ["Hanging", "Spy", "answering", "failing", "quoting"]


class Spy:
    """Answers as a detector does, and notes each text once it has answered.

    With ``slow`` each answer takes so many seconds, so that a guard that does not wait for it is seen.
    """

    def __init__(self, judge: Detect, *, slow: float = 0.0) -> None:
        self.read: list[str] = []
        self._judge = judge
        self._slow = slow

    def __call__(self, text: str) -> object:
        answer = self._judge(text)
        if self._slow:
            threading.Event().wait(self._slow)
        self.read.append(text)
        return answer


class Hanging:
    """Gives no answer until it is released; then the one that a detector gives."""

    def __init__(self, judge: Detect) -> None:
        self._judge = judge
        self._released = threading.Event()

    def __call__(self, text: str) -> object:
        self._released.wait()
        return self._judge(text)

    def release(self) -> None:
        """Lets all calls continue."""
        self._released.set()


def failing(judge: Detect, *, after: int) -> Detect:
    """A detector that answers ``after`` calls and raises in all others."""
    return _then(judge, _raise, after=after)


def answering(answer: object) -> Detect:
    """A detector that says the same of every text."""
    return lambda text: answer


def quoting(text: str) -> object:
    """A detector that raises an error with the text in its message."""
    raise ValueError(f"cannot read {text}")


def _then(first: Detect, later: Detect, *, after: int) -> Callable[[str], object]:
    calls = 0

    def detect(text: str) -> object:
        nonlocal calls
        calls += 1
        return first(text) if calls <= after else later(text)

    return detect


def _raise(text: str) -> object:
    raise RuntimeError("the detector failed")
