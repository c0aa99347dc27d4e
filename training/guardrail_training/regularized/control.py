"""How strongly the regularizer acts: fixed, or steered towards a rate of failures."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["DualAscent"]


@dataclass(slots=True)
class DualAscent:
    """A multiplier of the regularizer's weights.

    After each iteration it becomes ``multiplier * exp(rate * (failures - target))``, with ``failures`` the
    share of failed samples of decay ``memory``, and stays within ``1 / most`` and ``most``. A ``rate`` of 0
    leaves it alone.
    """

    rate: float
    target: float
    memory: float
    most: float
    multiplier: float = 1.0
    failures: float | None = None

    def update(self, failed: float | None) -> None:
        """Takes notice of the share of failures in the last samples; None where none are known."""
        if failed is None:
            return
        before = failed if self.failures is None else self.failures
        self.failures = self.memory * before + (1 - self.memory) * failed
        grown = self.multiplier * math.exp(self.rate * (self.failures - self.target))
        self.multiplier = min(max(grown, 1 / self.most), self.most)

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint has to keep."""
        state = {"multiplier": self.multiplier}
        return state if self.failures is None else state | {"failures": self.failures}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Puts back what ``state_dict`` gave."""
        self.multiplier, self.failures = state["multiplier"], state.get("failures")
