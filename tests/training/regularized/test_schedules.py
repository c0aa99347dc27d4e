"""What each branch of an iteration sees, and where both schedules arrive."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from guardrail.errors import ConfigError
from guardrail_training.nado.candidates import over_candidates
from guardrail_training.nado.posterior import posterior
from guardrail_training.processes import Processes
from guardrail_training.regularized.schedules import Schedule
from guardrail_training.regularized.trainer import DualAscent
from tests.training.nado import toy


class Versions:
    """Parts that are only numbers: of the language model and of the auxiliary model, and what each saw."""

    def __init__(self) -> None:
        self.policy = self.auxiliary = 0
        self.seen: list[tuple[str, int, dict[str, int]]] = []

    def collect(self, iteration: int) -> int:
        self.seen.append(("collect", iteration, {"policy": self.policy}))
        return self.policy

    def fit(self, iteration: int, samples: Sequence[int]) -> None:
        self.seen.append(("fit", iteration, {"samples": samples[-1], "in all": len(samples)}))
        self.auxiliary = iteration

    def tune(self, iteration: int, samples: int) -> None:
        self.seen.append(("tune", iteration, {"samples": samples, "auxiliary": self.auxiliary}))
        self.policy = iteration

    def changed(self, branch: str) -> Any: ...
    def adopt(self, branch: str, change: Any) -> None: ...


def seen_by(parallel: bool, branch: str) -> list[dict[str, int]]:  # a test's parameter
    parts = Versions()
    schedule: Schedule[int] = Schedule(parts, parallel=parallel, processes=Processes(), remembers=True)
    schedule.begin()
    for iteration in (1, 2, 3):
        schedule.run(iteration, is_last=iteration == 3)
    return [what for name, iteration, what in parts.seen if name == branch and iteration]


def test_a_sequential_iteration_builds_on_itself() -> None:
    assert seen_by(False, "collect") == [{"policy": 1}, {"policy": 2}]
    assert seen_by(False, "fit") == [{"samples": 1, "in all": 2}, {"samples": 2, "in all": 3}]
    assert seen_by(False, "tune") == [
        {"samples": 0, "auxiliary": 0},
        {"samples": 1, "auxiliary": 2},
        {"samples": 2, "auxiliary": 3},
    ]


def test_a_parallel_iteration_sees_only_what_the_one_before_left() -> None:
    assert seen_by(True, "collect") == [{"policy": 0}, {"policy": 1}]
    assert seen_by(True, "fit") == [{"samples": 0, "in all": 1}, {"samples": 0, "in all": 2}]
    assert seen_by(True, "tune") == [
        {"samples": 0, "auxiliary": 0},
        {"samples": 0, "auxiliary": 1},
        {"samples": 1, "auxiliary": 2},
    ]


class ToyParts(Versions):
    """The enumerated language model, each branch done to the end: samples are all responses."""

    def __init__(self, corpus: torch.Tensor, *, weight: float) -> None:
        super().__init__()
        self.log_p = corpus.log_softmax(dim=1)
        self.log_success = torch.zeros_like(corpus)
        self._corpus, self._weight = self.log_p.exp(), weight

    def collect(self, iteration: int) -> Any:
        return self.log_p

    def fit(self, iteration: int, samples: Any) -> None:
        self.log_success = toy.log_success_table(toy.success_by_enumeration(samples[-1], toy.hard))

    def tune(self, iteration: int, samples: Any) -> None:
        every = torch.arange(toy.WORDS).expand(len(self.log_p), -1)
        q = posterior(over_candidates(self.log_p, every), self.log_success)[:, :-1].exp()
        # The minimum of cross entropy with the corpus plus weight times KL(q || p), prefix by prefix.
        self.log_p = ((self._corpus + self._weight * q) / (1 + self._weight)).log()


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_both_schedules_reach_the_same_optimum(weight: float) -> None:
    corpus = toy.random_table(4)
    found = []
    for parallel in (False, True):
        parts = ToyParts(corpus, weight=weight)
        schedule: Schedule[Any] = Schedule(parts, parallel=parallel, processes=Processes())
        schedule.begin()
        for iteration in range(1, 121):
            schedule.run(iteration, is_last=False)
        found.append(parts.log_p.exp())

    sequential, parallel_ = found
    torch.testing.assert_close(sequential, parallel_, atol=1e-6, rtol=0)
    before = 1 - toy.success_by_enumeration(corpus, toy.hard)[()]
    after = 1 - toy.success_by_enumeration(sequential.log(), toy.hard)[()]
    assert after < before / (1 + weight / 2)


def test_without_a_language_model_loss_one_iteration_reaches_the_posterior() -> None:
    corpus = toy.random_table(4)
    parts = ToyParts(corpus, weight=1e9)
    schedule: Schedule[Any] = Schedule(parts, parallel=True, processes=Processes())
    schedule.begin()
    schedule.run(1, is_last=True)

    success = toy.success_by_enumeration(corpus, toy.hard)
    expected = toy.response_logprobs(corpus).exp() * toy.labels(toy.hard) / success[()]
    torch.testing.assert_close(toy.response_logprobs(parts.log_p).exp(), expected, atol=1e-6, rtol=0)


def test_more_processes_than_branches_are_an_error() -> None:
    processes = Processes()
    processes.count = 4

    with pytest.raises(ConfigError, match="parallel schedule runs in at most 3 processes, got 4"):
        Schedule(Versions(), parallel=True, processes=processes)
    with pytest.raises(ConfigError, match="sequential schedule runs in at most 1 processes, got 4"):
        Schedule(Versions(), parallel=False, processes=processes)


def test_dual_ascent_presses_harder_while_too_much_fails_and_stays_in_bounds() -> None:
    control = DualAscent(rate=2.0, target=0.1, memory=0.0, max_multiplier=3.0)

    control.update(0.3)
    assert control.multiplier == pytest.approx(math.exp(0.4))
    for _ in range(9):
        control.update(1.0)
    assert control.multiplier == 3.0
    for _ in range(99):
        control.update(0.0)
    assert control.multiplier == pytest.approx(1 / 3)


def test_dual_ascent_remembers_and_comes_back_from_a_checkpoint() -> None:
    control = DualAscent(rate=1.0, target=0.1, memory=0.5, max_multiplier=9.0)
    control.update(0.4)
    control.update(0.0)

    back = DualAscent(rate=1.0, target=0.1, memory=0.5, max_multiplier=9.0)
    back.load_state_dict(control.state_dict())

    assert back == control
    assert back.failures == pytest.approx(0.2)


def test_without_a_rate_nothing_is_steered() -> None:
    control = DualAscent(rate=0.0, target=0.1, memory=0.5, max_multiplier=9.0)

    control.update(1.0)

    assert control.multiplier == 1.0
