"""Agreement favours the candidate that the others resemble, whatever their order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.flow.agreement import agreement

texts = st.lists(st.text(max_size=20), min_size=1, max_size=6)


def test_the_odd_one_out_agrees_least() -> None:
    shares = agreement(["He is not right.", "He is not right about this.", "Pizza for dinner!"])
    assert min(shares) == shares[2]


def test_a_text_alone_agrees_with_itself() -> None:
    assert agreement(["anything"]) == [1.0]


def test_chrf_of_two_texts_as_worked_out_by_hand() -> None:
    # "ab" and "ac": one of two letters shared, no pair of letters; n-grams of 3 and 4 do not exist.
    assert agreement(["ab", "a c"]) == pytest.approx([0.625, 0.625])


def test_n_grams_of_up_to_four_characters_count() -> None:
    # All letters, one of three pairs, nothing longer: (1 + 1/3 + 0 + 0) / 4.
    assert agreement(["abcd", "abdc"]) == pytest.approx([2 / 3, 2 / 3])
    assert agreement(["abcde", "abcdf"]) == pytest.approx([(1 + (0.8 + 0.75 + 2 / 3 + 0.5) / 4) / 2] * 2)


@given(texts)
def test_shares_are_between_zero_and_one_and_follow_their_texts(given_texts: list[str]) -> None:
    shares = agreement(given_texts)
    assert all(0.0 < share <= 1.0 for share in shares)
    assert agreement(given_texts[::-1]) == pytest.approx(shares[::-1])
