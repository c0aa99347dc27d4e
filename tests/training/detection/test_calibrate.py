"""Calibration finds known constants, and thresholds keep clean sets below what is allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail_training.detection.calibrate import MIN_TEXTS, CleanSet, choose_thresholds, platt, scores


def test_known_constants_are_found_again() -> None:
    logits = np.random.default_rng(0).normal(size=20_000) * 3
    shares = 1 / (1 + np.exp(-(0.5 * logits - 1.0)))
    constants = platt(logits, shares, np.ones_like(logits))
    assert constants["a"] == pytest.approx(0.5, abs=0.01)
    assert constants["b"] == pytest.approx(-1.0, abs=0.01)


def test_without_rows_a_logit_is_taken_as_it_is() -> None:
    empty = np.zeros(0)
    assert platt(empty, empty, empty) == {"a": 1.0, "b": 0.0}


def test_perfectly_separated_rows_give_finite_constants() -> None:
    constants = platt(np.array([-5.0, 5.0]), np.array([0.0, 1.0]), np.ones(2))
    assert np.isfinite(list(constants.values())).all()
    assert constants["a"] > 0


def test_scores_have_the_columns_of_the_calibration() -> None:
    calibration = {"x": {"a": 1.0, "b": 0.0}, "y": {"a": 2.0, "b": 1.0}}
    expected = [[0.5, 1 / (1 + np.exp(-1.0))]]
    np.testing.assert_allclose(scores(np.zeros((1, 2)), calibration), expected)


clean_sets = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=MIN_TEXTS, max_size=200)


def clean_set(texts: list[tuple[float, bool]]) -> CleanSet:
    return CleanSet(np.array([score for score, _ in texts]), np.array([marked for _, marked in texts]))


@given(clean_sets, st.floats(0, 0.5))
def test_at_the_thresholds_no_more_than_allowed_is_flagged(
    texts: list[tuple[float, bool]], share: float
) -> None:
    chosen = choose_thresholds({"clean": clean_set(texts)}, {"clean": share})
    flagged = [score >= chosen["marked" if marked else "alone"] for score, marked in texts]
    if chosen["alone"] < 0.99:
        assert np.mean(flagged) <= share
    assert chosen["marked"] <= chosen["alone"]


def test_the_strictest_set_decides_and_small_ones_do_not() -> None:
    sets = {
        "a": clean_set([(0.2, False)] * 100),
        "b": clean_set([(0.6, False)] * 100),
        "c": clean_set([(0.9, False)] * (MIN_TEXTS - 1)),
    }
    assert choose_thresholds(sets, dict.fromkeys(sets, 0.0))["alone"] == pytest.approx(0.61)


def test_marked_words_may_use_what_the_score_alone_leaves_of_the_budget() -> None:
    texts = [(0.9, False)] * 6 + [(0.4, True)] * 4 + [(0.1, False)] * 90
    chosen = choose_thresholds({"clean": clean_set(texts)}, {"clean": 0.1})
    assert chosen["marked"] < 0.4 < chosen["alone"] <= 0.9
