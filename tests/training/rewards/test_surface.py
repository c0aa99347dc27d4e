from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import ConfigError
from guardrail_training.rewards.algebra import Answer
from guardrail_training.rewards.surface import copied, length_in_words, length_ratio, overlapping, within


def answer(query: str, response: str) -> Answer:
    return Answer(query=query, prompt=query, response=response)


def test_a_copy_is_one_whatever_its_case_and_punctuation() -> None:
    answers = [answer("You fool .", text) for text in ("you fool", "You, fool!", "you are", "")]

    assert copied(answers).tolist() == [1, 1, 0, 0]


def test_lengths_count_words_of_the_response_and_ratios_those_of_the_query_too() -> None:
    answers = [
        answer("one two three four", text) for text in ("", "one", "one two", "a b c d", "a b c d e f g h")
    ]

    assert length_in_words(least=2, most=4)(answers).tolist() == [0, 0.5, 1, 1, 0.5]
    assert length_ratio(least=0.5, most=1)(answers).tolist() == [0, 0.5, 1, 1, 0.5]


@given(size=st.floats(0, 50), least=st.floats(0, 10), room=st.floats(0.1, 10))
def test_inside_the_bounds_is_1_and_it_falls_towards_0_on_both_sides(
    size: float, least: float, room: float
) -> None:
    (value,) = within([size], least=least, most=least + room)

    assert 0 <= value <= 1
    assert (value == 1) == (least <= size <= least + room) or value == pytest.approx(1, abs=1e-6)


def test_no_bound_below_means_that_an_empty_response_is_not_too_short() -> None:
    assert within([0], least=0, most=3).tolist() == [1]


def test_overlap_is_1_for_one_of_the_references_and_less_for_other_texts() -> None:
    references = ("That is wrong.", "I think that is wrong.")
    answers = [
        Answer(query="q", prompt="q", response=text, references=references)
        for text in ("I think that is wrong.", "I think that is bad.", "Nothing of it", "")
    ]

    scores = overlapping(answers).tolist()

    assert scores[0] == pytest.approx(1)
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] == 0


def test_overlap_without_references_is_a_clear_error() -> None:
    with pytest.raises(ConfigError, match="overlap needs references"):
        overlapping([answer("You fool", "You person")])
