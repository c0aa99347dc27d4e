"""When the first text of an answer was released, for whoever measures it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter

__all__ = ["FirstText", "first_text", "note_text"]


@dataclass(slots=True)
class FirstText:
    """``at`` is a time of ``perf_counter``; None as long as there was none."""

    at: float | None = None


_noted: ContextVar[FirstText | None] = ContextVar("guardrail_first_text", default=None)


@contextmanager
def first_text() -> Iterator[FirstText]:
    """Has the first text noted that streams release in this task and the tasks that it starts."""
    noted = FirstText()
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def note_text() -> None:
    """Some text of a stream may be shown now."""
    noted = _noted.get()
    if noted is not None and noted.at is None:
        noted.at = perf_counter()
