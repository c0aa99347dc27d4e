"""How strongly the policy is held to its reference: a coefficient that is fixed, or steers to a target."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KlControl"]

GREATEST_ERROR = 0.2


@dataclass(slots=True)
class KlControl:
    """The coefficient of the KL penalty.

    With a ``target`` (nats per response) it grows while the KL lies above and shrinks while it lies below, by
    at most a fifth per ``horizon`` responses (https://arxiv.org/abs/1909.08593, section 2.2); with a target
    of None it stays.
    """

    coefficient: float
    target: float | None
    horizon: int

    def update(self, kl: float, *, responses: int) -> None:
        """Takes notice of the mean KL of some responses."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -GREATEST_ERROR), GREATEST_ERROR)
            self.coefficient *= 1 + error * responses / self.horizon

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint has to keep."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Puts back what ``state_dict`` gave."""
        self.coefficient = state["coefficient"]
