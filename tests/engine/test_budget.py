"""Models may work for one task only so long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from guardrail import Guard, Policy, Verdict
from guardrail.engine.budget import Budget, current_budget, within
from guardrail.errors import BudgetError
from tests.fakes import WordDetector

TEXT = "The weather in the valley is fine today. " * 20


class CountingDetector(WordDetector):
    """Counts what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        """As the detector has it."""
        self.asked += 1
        return super().detect(texts)


def test_a_budget_that_is_used_up_ends_the_task_without_another_call() -> None:
    detector = CountingDetector()
    guard = Guard(detector=detector, rewriter=None, policy=Policy(batch=2))

    async def check() -> None:
        with within(1e-9):
            await guard.acheck(TEXT)

    with pytest.raises(BudgetError, match="models have worked"):
        asyncio.run(check())
    assert detector.asked == 1  # the first call is what the budget was spent on


def test_a_budget_that_suffices_changes_nothing_and_knows_what_was_spent() -> None:
    guard = Guard(detector=WordDetector(), rewriter=None)

    async def check() -> tuple[str, float]:
        with within(3600) as budget:
            outcome = await guard.acheck(TEXT)
            return outcome.text, budget.spent

    text, spent = asyncio.run(check())
    assert text == TEXT
    assert 0 < spent < 3600


def test_callers_of_one_call_are_each_charged_for_their_texts_alone() -> None:
    guard = Guard(detector=WordDetector(), rewriter=None)

    async def check(texts: int) -> Budget:
        with within(3600) as budget:
            await guard.acheck(TEXT[: 41 * texts])
        return budget

    async def together() -> list[Budget]:
        return list(await asyncio.gather(check(1), check(10)))

    small, large = asyncio.run(together())
    assert 0 < small.spent <= large.spent
    assert current_budget() is None
