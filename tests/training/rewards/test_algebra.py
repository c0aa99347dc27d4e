from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import ConfigError, PluginError
from guardrail_training.rewards.algebra import Answer, Reward, named

CANARY = "zebra-7391"
ANSWERS = [Answer(query="a b", prompt=f"do: {text}", response=text) for text in ("x", "x y", "x y z")]


def words(answers: Sequence[Answer]) -> list[float]:
    return [len(answer.response.split()) for answer in answers]


def constant(value: float) -> Reward:
    return named(f"c{value}", lambda answers: [value] * len(answers))


WORDS = named("words", words, models=["m"])


def total(reward: Reward) -> list[float]:
    values: list[float] = reward(ANSWERS).total.tolist()
    return values


@given(a=st.floats(-4, 4, width=32), b=st.floats(-4, 4, width=32), weight=st.floats(-4, 4, width=32))
def test_rewards_add_subtract_and_multiply_as_numbers_do(a: float, b: float, weight: float) -> None:
    one, other = constant(a), named("other", lambda answers: [b] * len(answers))

    for reward, expected in (
        (one + other, a + b),
        (one - other, a - b),
        (one * other, a * b),
        (weight * one + other, weight * a + b),
        (weight - one, weight - a),
        (weight + one, weight + a),
        (one * weight - 1, a * weight - 1),
        (-(one + other) * one, -(a + b) * a),
    ):
        assert total(reward) == pytest.approx([expected] * 3, abs=1e-4)


def test_a_reward_is_one_float32_per_answer_with_its_terms_beside_it() -> None:
    scored = (2 * WORDS - 0.5 * constant(1))(ANSWERS)

    assert scored.total.tolist() == [1.5, 3.5, 5.5]
    assert scored.total.dtype == np.float32
    assert scored.terms["words"].tolist() == [1, 2, 3]
    assert sorted(scored.terms) == ["c1", "words"]


def test_a_term_that_occurs_twice_is_computed_once() -> None:
    calls = []

    def counted(answers: Sequence[Answer]) -> list[float]:
        calls.append(len(answers))
        return words(answers)

    term = named("words", counted)

    assert total(term * term + term) == [2, 6, 12]
    assert calls == [3]


def test_a_formula_and_the_models_behind_it_can_be_read() -> None:
    reward = WORDS * 0.5 - named("copy", words, models=["n"])

    assert reward.formula == "((words * 0.5) - copy)"
    assert reward.models == {"m", "n"}


def test_two_scores_under_one_name_are_an_error() -> None:
    with pytest.raises(ConfigError, match="two different rewards are called words"):
        WORDS + named("words", lambda answers: [0.0] * len(answers))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0], r"'bad' gave shape \(1,\) for 3 answers"),
        ([[1.0], [2.0], [3.0]], "not one number each"),
        ([1.0, float("nan"), float("inf")], "not finite for 2 of 3 answers"),
    ],
)
def test_a_score_that_is_not_one_finite_number_each_is_an_error(values: list[float], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        named("bad", lambda _: values)(ANSWERS)


def test_neither_answers_nor_rewards_show_text() -> None:
    answer = Answer(query=CANARY, prompt=CANARY, response=CANARY)
    with pytest.raises(PluginError) as caught:
        named("bad", lambda _: [])([answer])

    assert CANARY not in repr(answer)
    assert CANARY not in str(caught.value)
