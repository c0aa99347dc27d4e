"""Win rates: both orders, ties, and a judge that has to prove itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from guardrail.errors import FailureError, PluginError, UsageError
from guardrail_training import modeling
from guardrail_training.regularized.pairwise import (
    Duel,
    WinRate,
    competence,
    endpoint_judge,
    likelihood_judge,
    require_competent,
    shuffled,
    win_rate,
)
from guardrail_training.regularized.subject import Subject
from tests.training.reinforcement.conftest import word_tokenizer

DUELS = [
    Duel(prompt="p", own=" good", other=" bad"),
    Duel(prompt="p", own=" bad", other=" good"),
    Duel(prompt="p", own=" good", other=" good"),
]


def prefers_good(questions: Sequence[str]) -> list[str]:
    """Sees quality, and takes A where both are alike."""
    found = []
    for question in questions:
        first, second = question.split("Continuation A:")[1].split("Continuation B:")
        found.append("B" if "good" in second and "good" not in first else "A")
    return found


def test_a_duel_is_won_only_in_both_orders() -> None:
    found = win_rate(DUELS, prefers_good)

    assert found == WinRate(won=1, lost=1, tied=1)
    assert found.rate == 0.5
    assert found.consistent == pytest.approx(2 / 3)


def test_a_judge_that_always_says_a_wins_nothing() -> None:
    assert win_rate(DUELS, lambda questions: ["A"] * len(questions)) == WinRate(won=0, lost=0, tied=3)


def test_a_judge_that_says_something_else_has_no_opinion() -> None:
    assert win_rate(DUELS, lambda questions: ["?"] * len(questions)).tied == 3


def test_no_duels_and_missing_answers_are_errors() -> None:
    with pytest.raises(UsageError, match="no duels"):
        win_rate([], prefers_good)
    with pytest.raises(PluginError, match="gave 0 answers to 3 questions"):
        win_rate(DUELS, lambda questions: [])


def test_a_text_with_place_holders_stays_as_it_is() -> None:
    asked: list[str] = []

    def note(questions: Sequence[str]) -> list[str]:
        asked.extend(questions)
        return ["A"] * len(questions)

    win_rate([Duel(prompt="{first}", own="{second}", other="x")], note)

    assert asked[0].startswith("Text: {first}\n\nContinuation A:{second}\n\nContinuation B:x")


def test_a_judge_has_to_tell_true_from_shuffled() -> None:
    pairs = [("p", f"one two three four {number}") for number in range(8)]
    guesses = competence(pairs, lambda questions: ["A"] * len(questions), seed=0)

    with pytest.raises(FailureError, match="0% of 8 pairs, below 75%: there is no competent judge here"):
        require_competent(guesses)
    require_competent(competence(pairs, reads_in_order, seed=0))


def reads_in_order(questions: Sequence[str]) -> list[str]:
    return ["A" if "one two three" in q.split("Continuation B:")[0] else "B" for q in questions]


def test_shuffling_keeps_the_words() -> None:
    text = " one two three four five"

    assert sorted(shuffled(text, seed=1).split()) == sorted(text.split())
    assert shuffled(text, seed=1) == shuffled(text, seed=1) != text


def test_a_language_model_judges_by_the_likelier_letter(llama_base: Path) -> None:
    model = modeling.load_base(llama_base, dtype=torch.float32)

    answers = likelihood_judge(Subject(model, word_tokenizer()))(["a0 a1", "b1"])

    assert len(answers) == 2
    assert set(answers) <= {"A", "B"}


def test_an_endpoint_judges_by_the_first_letter_it_writes() -> None:
    written = iter([" a", "B.", None])

    def create(**asked: Any) -> Any:
        assert asked["model"] == "judge"
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=next(written)))])

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))

    assert endpoint_judge(client, model="judge")(["q"] * 3) == ["A", "B", ""]
