"""Refuses an adapter that rewrites worse than the one in use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import FailureError
from guardrail.protocols import Rewriter
from guardrail_training.evaluation.rewriting_report import (
    Advantage,
    Block,
    Instruments,
    advantage,
    measure,
    summarise,
)
from guardrail_training.evaluation.systems import Sentences, greedy

__all__ = ["AdapterRefusedError", "Comparison", "compare"]


class AdapterRefusedError(FailureError):
    """The new adapter's J on the dev sentences is below that of the one in use."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both adapters' figures and the paired difference in J, the new one's less the current one's."""

    new: Block
    current: Block
    difference: Advantage

    @property
    def accepted(self) -> bool:
        """Whether the new adapter's J is not below the current one's, each by its lower judge."""
        return self.new.counted("j_first").value >= self.current.counted("j_first").value

    @property
    def reason(self) -> str:
        """Both figures and their paired difference with its 95 % interval, in words."""
        new, current, less = self.new.counted("j_first"), self.current.counted("j_first"), self.difference.j
        return (
            f"J on the dev sentences is {new.value:.3f}, the current adapter's {current.value:.3f}; the "
            f"paired difference by {self.difference.judge} is {less.value:+.3f} "
            f"[{less.low:+.3f}, {less.high:+.3f}]"
        )


def compare(
    new: Path,
    current: Path,
    *,
    load: Callable[[Path], Rewriter],
    sentences: Sentences,
    instruments: Instruments,
    seed: int,
) -> Comparison:
    """Greedy rewrites of both adapters on the same sentences, J against the first reference, lower judge."""
    measured = [
        measure(greedy(sentences, name=name, rewriter=load(folder)), instruments)
        for name, folder in (("new", new), ("current", current))
    ]
    blocks = [summarise(each, seed=seed) for each in measured]
    difference = advantage(measured[0], measured[1], seed=seed)
    # None stands for no sentence at all, and here both have all.
    assert blocks[0] is not None
    assert blocks[1] is not None
    assert difference is not None
    return Comparison(blocks[0], blocks[1], difference)
