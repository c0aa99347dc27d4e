"""How long models may work for one task of a caller, such as a request, whatever texts it brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from guardrail.errors import BudgetError

__all__ = ["Budget", "current_budget", "within"]

_current: ContextVar[Budget | None] = ContextVar("guardrail_budget", default=None)


@dataclass(slots=True)
class Budget:
    """Seconds that models may work, and have worked.

    Of a call that several callers share each is charged for its part of the texts. That is time of models
    alone: waiting for them, or for a text to be written, costs nothing.
    """

    seconds: float
    spent: float = 0.0

    def require(self) -> None:
        """BudgetError once it is used up."""
        if self.spent >= self.seconds:
            raise BudgetError(f"models have worked {self.spent:.1f} s of the {self.seconds:g} s allowed")

    def charge(self, seconds: float) -> None:
        """Takes note of a call's part."""
        self.spent += seconds


@contextmanager
def within(seconds: float) -> Iterator[Budget]:
    """A budget for all that coroutines ask of models inside the block, in tasks that it starts, too."""
    budget = Budget(seconds)
    token = _current.set(budget)
    try:
        yield budget
    finally:
        _current.reset(token)


def current_budget() -> Budget | None:
    """The budget of the task that asks; None if there is none."""
    return _current.get()
