"""The order in which samples, auxiliary model and language model follow each other.

    sequential   iteration t draws from the language model of t - 1, fits the auxiliary model to that, and
                 fine-tunes the language model under it: each waits for the one before.
    parallel     all three use what t - 1 left: the language model is fine-tuned under the auxiliary model of
                 t - 1 while the auxiliary model is fitted to the samples of t - 1 and new ones are drawn from
                 the language model of t - 1. None waits for another, at the price of a lag of one iteration.

Both begin with samples of the starting model and an auxiliary model fitted to them (``begin``), the only part
that the parallel schedule cannot overlap. One process runs the three branches of an iteration one after the
other, in an order in which none sees what another has changed; two or three run them side by side and then
exchange what they changed. The results are the same. In the last parallel iteration nothing is drawn or
fitted, since nothing would learn from it: both schedules draw as much.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from guardrail.errors import ConfigError
from guardrail_training.processes import Processes

__all__ = ["BRANCHES", "Parts", "Schedule"]

Drawn = TypeVar("Drawn")
BRANCHES = ("collect", "tune", "fit")


class Parts(Protocol[Drawn]):
    """A language model, an auxiliary model and an oracle, as a schedule sees them.

    ``collect`` changes nothing; ``fit``, which is given the samples so far, changes the auxiliary model alone
    and reads nothing of the language model; ``tune``, which is given the last ones, changes the language
    model alone. ``changed`` is what a branch has just changed or measured, for other processes, which
    ``adopt`` it.
    """

    def collect(self, iteration: int) -> Drawn: ...
    def fit(self, iteration: int, samples: Sequence[Drawn]) -> None: ...
    def tune(self, iteration: int, samples: Drawn) -> None: ...
    def changed(self, branch: str) -> Any: ...
    def adopt(self, branch: str, change: Any) -> None: ...


class Schedule(Generic[Drawn]):
    """Runs iterations over the parts.

    ``samples`` are the last ones that were drawn, after all earlier ones if the schedule ``remembers``.
    """

    def __init__(
        self, parts: Parts[Drawn], *, parallel: bool, processes: Processes, remembers: bool = False
    ) -> None:
        if processes.count > (len(BRANCHES) if parallel else 1):
            raise ConfigError(
                f"the {'parallel' if parallel else 'sequential'} schedule runs in at most "
                f"{len(BRANCHES) if parallel else 1} processes, got {processes.count}"
            )
        self._parts, self._parallel, self._processes = parts, parallel, processes
        self._remembers = remembers
        self.samples: list[Drawn] = []

    def begin(self) -> None:
        """Samples of the starting model, and the auxiliary model fitted to them."""
        # Every process does the same here: there is nothing yet that could overlap.
        self.samples = [self._parts.collect(0)]
        self._parts.fit(0, self.samples)

    def run(self, iteration: int, *, is_last: bool) -> None:
        """One iteration, counted from 1, after ``begin`` or with ``samples`` put back."""
        if self._parallel:
            self._side_by_side(iteration, branches=("tune",) if is_last else BRANCHES)
        else:
            self._one_by_one(iteration)

    def _one_by_one(self, iteration: int) -> None:
        if iteration > 1:  # the first iteration's are those of ``begin``
            self._take(self._parts.collect(iteration))
            self._parts.fit(iteration, self.samples)
        self._parts.tune(iteration, self._last())

    def _side_by_side(self, iteration: int, *, branches: Sequence[str]) -> None:
        last = self._last()
        # In one process this order matters: drawing reads the language model that tuning changes, and tuning
        # reads the auxiliary model that fitting changes.
        work: Mapping[str, Callable[[], Any]] = {
            "collect": lambda: self._parts.collect(iteration),
            "tune": lambda: self._parts.tune(iteration, last),
            "fit": lambda: self._parts.fit(iteration, self.samples),
        }
        own = [
            name
            for place, name in enumerate(branches)
            if place % self._processes.count == self._processes.index
        ]
        done = {name: work[name]() for name in own}
        if self._processes.count > 1:
            done = self._exchanged(done)
        if "collect" in branches:
            self._take(done["collect"])

    def _exchanged(self, done: dict[str, Any]) -> dict[str, Any]:
        """What every branch made, after all processes have adopted what the others changed."""
        changes = {name: self._parts.changed(name) for name in done}
        drawn: dict[str, Any] = {}
        for samples, others in self._processes.gather((done, changes)):
            drawn |= {name: made for name, made in samples.items() if name == "collect"}
            for name in sorted(others.keys() - done.keys()):
                self._parts.adopt(name, others[name])
        return drawn

    def _take(self, samples: Drawn) -> None:
        self.samples = [*self.samples, samples] if self._remembers else [samples]

    def _last(self) -> Drawn:
        if not self.samples:
            raise ConfigError("a schedule begins with begin(), or with the samples of an earlier state")
        return self.samples[-1]
