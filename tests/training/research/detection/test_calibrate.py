"""Calibration finds known constants, and thresholds keep clean sets below what is allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.detection.calibrate import MIN_TEXTS, ScoredTexts, choose_thresholds, platt, scores


def test_calibration_of_large_overconfident_logits_converges() -> None:
    drawn = np.random.default_rng(3)
    probabilities = drawn.uniform(0.02, 0.6, 800)
    shares = (drawn.random(800) < probabilities).astype(float)
    logits = 3.0 * np.log(probabilities / (1 - probabilities)) + 4.0
    constants = platt(logits, shares, np.ones(800))
    assert abs(constants["a"] - 1 / 3) < 0.06
    expected = 1 / (1 + np.exp(-(constants["a"] * logits + constants["b"])))
    assert abs(expected.mean() - shares.mean()) < 1e-3


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


read_texts = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=MIN_TEXTS, max_size=120)


def scored(texts: list[tuple[float, bool]]) -> ScoredTexts:
    return ScoredTexts(
        np.array([score for score, _ in texts]), np.array([marked for _, marked in texts], dtype=bool)
    )


@settings(max_examples=20, deadline=None)
@given(read_texts, read_texts, st.floats(0, 0.5))
def test_at_the_thresholds_no_more_than_allowed_is_flagged(
    harmless: list[tuple[float, bool]], hostile: list[tuple[float, bool]], share: float
) -> None:
    chosen = choose_thresholds({"clean": scored(harmless)}, {"clean": share}, hostile=scored(hostile))
    if chosen["alone"] < 0.99:
        assert scored(harmless).flagged(chosen["alone"], chosen["marked"]) <= share
    assert chosen["marked"] <= chosen["alone"]


def test_the_strictest_set_decides_and_small_ones_do_not() -> None:
    sets = {
        "a": scored([(0.2, False)] * 100),
        "b": scored([(0.6, False)] * 100),
        "c": scored([(0.9, False)] * (MIN_TEXTS - 1)),
    }
    chosen = choose_thresholds(sets, dict.fromkeys(sets, 0.0), hostile=scored([(0.7, False)]))
    assert 0.6 < chosen["alone"] <= 0.7


def test_the_pair_that_finds_most_is_taken() -> None:
    harmless = scored([(0.9, False)] * 6 + [(0.4, True)] * 4 + [(0.1, False)] * 90)
    rarely_marked = choose_thresholds(
        {"clean": harmless}, {"clean": 0.05}, hostile=scored([(0.3, True)] * 9 + [(0.8, False)])
    )
    assert rarely_marked["marked"] <= 0.3
    never_marked = choose_thresholds(
        {"clean": harmless}, {"clean": 0.06}, hostile=scored([(0.3, True)] + [(0.8, False)] * 9)
    )
    assert never_marked["alone"] <= 0.8
    assert never_marked["marked"] > 0.4
