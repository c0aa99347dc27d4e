"""Calibration finds known constants, and the threshold keeps clean sets below what is allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail_training.detection.calibrate import choose_threshold, platt, scores


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


@given(st.lists(st.floats(0, 1), min_size=5, max_size=200), st.floats(0, 0.5))
def test_at_the_threshold_no_more_than_allowed_is_flagged(values: list[float], share: float) -> None:
    threshold = choose_threshold({"clean": np.array(values)}, {"clean": share})
    if threshold < 0.99:
        assert np.mean(np.array(values) >= threshold) <= share


def test_the_strictest_set_decides_and_empty_ones_do_not() -> None:
    sets = {"a": np.array([0.2] * 10), "b": np.array([0.6] * 10), "c": np.zeros(0)}
    assert choose_threshold(sets, {"a": 0.0, "b": 0.0, "c": 0.0}) == pytest.approx(0.61)
