"""Who is told of a run while it continues."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["Callback"]


class Callback:
    """What is told of a run; each method does nothing until a subclass says otherwise."""

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """A step was taken; ``metrics`` are those of the log."""

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        """The model was measured after a step."""

    def on_save(self, step: int, folder: Path) -> None:
        """A model was written."""

    def on_end(self) -> None:
        """The run ended, finished or not."""
