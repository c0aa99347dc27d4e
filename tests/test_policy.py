"""A policy is a frozen value: nothing that holds one can be changed by changing it."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import numpy as np
import pytest

from guardrail import Guard, Policy, Verdict, detox_guard
from guardrail.errors import ConfigError, UsageError
from tests.fakes import WordDetector

INVALID: list[dict[str, Any]] = [
    {"thresholds": 0.5},
    {"thresholds": "insult"},
    {"thresholds": ["insult"]},
    {"thresholds": None},
    {"thresholds": {1: 0.5}},
    {"ladder": None},
    {"ladder": "block"},
    {"ladder": (["block"],)},
    {"ladder": ("block", "mask")},
    {"length_ratio": 1},
    {"length_ratio": (0.5,)},
    {"length_ratio": ("0.5", "2")},
    {"length_ratio": (-0.1, 2)},
    {"length_ratio": (0.5, float("nan"))},
    {"refusal": None},
    {"mask": 3},
    {"on_error": None},
    {"block": ["raise"]},
    {"threshold": -0.01},
    {"threshold": float("nan")},
    {"detect_timeout": -1},
    {"candidates": 0},
    {"candidates": None},
    {"queue": 0},
    {"segment_min": 0},
    {"segment_max": 95},
    {"negation_change": -1},
    {"max_rewrites": -1},
    {"context": -1},
    {"batch_wait": -0.1},
    {"batch_wait": float("inf")},
    {"meaning_floor": -1.01},
]


@pytest.mark.parametrize("wrong", INVALID, ids=str)
def test_a_wrong_value_is_an_error_that_names_field_and_value(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=rf"^policy {name} must be .+, got .+"):
        Policy(**wrong)


SAID: list[tuple[dict[str, Any], str]] = [
    ({"threshold": 2}, "threshold must be between 0 and 1, got 2.0"),
    ({"threshold": "2"}, "threshold must be a number, got '2'"),
    ({"thresholds": {"x": 2}}, "x must be between 0 and 1, got 2.0"),
    ({"thresholds": {"x": "2"}}, "x must be a number, got '2'"),
    ({"thresholds": {1: 0.5}}, "thresholds must be a mapping of labels to numbers, got 1"),
    ({"thresholds": "x"}, "thresholds must be a mapping of labels to numbers, got the str 'x'"),
    ({"thresholds": 0.5}, "thresholds must be a mapping of labels to numbers, got 0.5"),
    ({"meaning_floor": 2}, "meaning_floor must be between -1 and 1, got 2.0"),
    ({"length_ratio": (2, 3)}, "length_ratio must be two numbers around 1, got (2.0, 3.0)"),
    ({"length_ratio": (1,)}, "length_ratio must be two numbers around 1, got (1,)"),
    ({"length_ratio": ("1", 2)}, "length_ratio must be a number, got '1'"),
    (
        {"ladder": ("mask",)},
        "ladder must be a part of ('rewrite', 'mask', 'block') that ends with 'block', got ('mask',)",
    ),
    ({"block": "never"}, "block must be segment, whole or raise, got 'never'"),
    ({"on_error": "never"}, "on_error must be closed, open, lexicon or raise, got 'never'"),
    ({"detect_timeout": 0}, "detect_timeout must be None or more than 0 seconds, got 0.0"),
    ({"context": -1}, "context must be 0 or more, got -1"),
    ({"batch_wait": -1}, "batch_wait must be 0 or more milliseconds, got -1.0"),
    ({"candidates": 0}, "candidates must be 1 or more, got 0"),
    ({"candidates": 1.5}, "candidates must be a whole number, got 1.5"),
    ({"segment_max": 95}, "segment_max must be at least 4 x segment_min, got 95"),
    ({"refusal": 1}, "refusal must be a str, got 1"),
    ({"mask": 1}, "mask must be None or a str, got 1"),
]


@pytest.mark.parametrize(("wrong", "said"), SAID, ids=[said for _, said in SAID])
def test_an_error_says_what_is_expected_and_what_was_given(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(**wrong)
    assert str(caught.value) == f"policy {said}"


LIMITS: list[dict[str, Any]] = [
    {"threshold": 0},
    {"threshold": 1},
    {"thresholds": {"insult": 0, "threat": 1}},
    {"meaning_floor": -1},
    {"meaning_floor": 1},
    {"length_ratio": (0, 1)},
    {"length_ratio": [1, 1]},
    {"ladder": ["rewrite", "block"]},
    {"ladder": ["mask", "block"]},
    {"candidates": 1},
    {"max_rewrites": 0},
    {"negation_change": 0},
    {"context": 0},
    {"segment_min": 1, "segment_max": 4},
    {"batch": 1},
    {"queue": 1},
    {"batch_wait": 0},
    {"detect_timeout": 1e-6},
    {"rewrite_timeout": None},
    {"block": "whole"},
    {"on_error": "raise"},
    {"mask": ""},
]


@pytest.mark.parametrize("allowed", LIMITS, ids=str)
def test_the_last_value_that_is_allowed_is_allowed(allowed: dict[str, Any]) -> None:
    policy = Policy(**allowed)
    assert {name: getattr(policy, name) for name in allowed} == {
        name: tuple(value) if isinstance(value, list) else value for name, value in allowed.items()
    }


def test_a_threshold_of_a_label_called_threshold_hides_nothing() -> None:
    with pytest.raises(ConfigError, match="policy threshold must be between 0 and 1, got 5"):
        Policy(threshold=5, thresholds={"threshold": 0.5})


def test_thresholds_cannot_be_changed_from_outside() -> None:
    given = {"toxicity": 0.5}
    policy = Policy(thresholds=given)
    given["toxicity"] = 1.0
    frozen: Any = policy.thresholds
    with pytest.raises(TypeError, match="read-only"):
        frozen["toxicity"] = 1.0
    with pytest.raises(TypeError, match="read-only"):
        frozen.update(toxicity=1.0)
    with pytest.raises(FrozenInstanceError):
        policy.thresholds = {}  # type: ignore[misc]  # the mistake under test
    assert policy == Policy(thresholds={"toxicity": 0.5})


def test_a_guards_policy_cannot_be_exchanged_under_it() -> None:
    guard = Guard(detector=WordDetector(), lexicon=WordDetector(), rewriter=None)
    with pytest.raises(AttributeError):
        guard.policy = Policy()  # type: ignore[misc]  # the mistake under test


def test_equal_policies_have_equal_hashes_and_digests_whatever_their_numbers_are() -> None:
    plain = Policy(threshold=1.0, thresholds={"a": 0.5, "b": 0.25}, candidates=3, length_ratio=(0.5, 2.0))
    other = Policy(
        threshold=np.float32(1),  # type: ignore[arg-type]  # as people do
        thresholds={"b": np.float64(0.25), "a": np.float32(0.5)},  # type: ignore[dict-item]  # as people do
        candidates=np.int64(3),  # type: ignore[arg-type]  # as people do
        length_ratio=np.array([0.5, 2]),  # type: ignore[arg-type]  # as people do
    )
    assert (plain, hash(plain), plain.digest()) == (other, hash(other), other.digest())
    assert len({plain, other, Policy()}) == 2


def test_every_setting_is_part_of_the_digest() -> None:
    other: dict[str, Any] = {
        "use": "community",
        "threshold": 0.5,
        "early_stop": 0.5,
        "unsupported": "mask",
        "thresholds": {"a": 0.1},
        "meaning_floor": 0.4,
        "length_ratio": (0.5, 2),
        "ladder": ("block",),
        "block": "raise",
        "refusal": "no",
        "mask": "x",
        "on_error": "open",
        "detect_timeout": None,
        "rewrite_timeout": None,
        "acceptable": 0.5,
        "likelihood_floor": -1.0,
        "removed": "x",
        "removals": {"a": "x"},
        "harms": {"a": 0.1},
        "lossy": True,
        "enforce": False,
    }
    settings = [f.name for f in fields(Policy) if f.name != "name"]
    numbers = {name: getattr(Policy(), name) + 1 for name in settings if name not in other}
    digests = {replace(Policy(), **{name: value}).digest() for name, value in (other | numbers).items()}
    assert len(digests | {Policy().digest()}) == len(settings) + 1
    assert {len(digest) for digest in digests} == {16}


@pytest.mark.parametrize("policy", [Policy(), Policy(thresholds={"insult": 0.5}, ladder=("block",))], ids=str)
def test_a_policy_comes_back_from_pickle_and_copy_as_it_was(policy: Policy) -> None:
    for back in (pickle.loads(pickle.dumps(policy)), copy.deepcopy(policy), copy.copy(policy)):  # noqa: S301  # our own bytes
        assert (back, hash(back)) == (policy, hash(policy))
        with pytest.raises(TypeError, match="read-only"):
            back.thresholds["insult"] = 1.0


@pytest.mark.parametrize("wrong", [{}, {"threshold": 0.5}, [], 0.5, "closed", Policy], ids=str)
def test_what_is_no_policy_is_refused_with_the_way_out(wrong: Any) -> None:
    said = r"expected a Policy, got \w+; .*Policy\("
    guard = Guard(detector=WordDetector(), lexicon=WordDetector(), rewriter=None)
    for give in (
        lambda: Guard(policy=wrong),
        lambda: guard.with_policy(wrong),
        lambda: detox_guard(policy=wrong),
    ):
        with pytest.raises(UsageError, match=said):
            give()


@pytest.mark.parametrize(
    ("settings", "scores", "flagged", "decided"),
    [
        ({}, {"a": 0.9}, False, False),
        ({}, {"a": 0.1}, True, True),
        ({"threshold": 0.5}, {"a": 0.5}, False, True),
        ({"threshold": 0.5}, {"a": 0.49}, True, False),
        ({"threshold": 0.5}, {"a": 0.1, "b": 0.6}, False, True),
        ({"threshold": 0.5}, {}, True, True),
        ({"threshold": 0.5}, {}, False, False),
        ({"thresholds": {"a": 0.5}}, {"a": 0.5, "b": 0.9}, False, True),
        ({"thresholds": {"a": 0.5}}, {"a": 0.4, "b": 0.9}, False, False),
        ({"thresholds": {"a": 0.5}}, {"a": 0.4}, True, True),
        ({"threshold": 0.2, "thresholds": {"a": 0.5}}, {"a": 0.4, "b": 0.1}, True, False),
        ({"threshold": 0.9, "thresholds": {"a": 0.5}}, {"a": 0.4, "b": 0.9}, False, True),
    ],
)
def test_thresholds_decide(
    settings: dict[str, Any], scores: dict[str, float], flagged: bool, decided: bool
) -> None:
    verdict = Verdict(scores, flagged)
    assert Policy(**settings).flags(verdict) is decided
    assert Policy(**settings).decided(verdict) == Verdict(scores, decided)


@pytest.mark.parametrize(
    ("ladder", "advice"),
    [
        ("mask", "; write ladder=('mask', 'block')"),
        ("rewrite", "; write ladder=('rewrite', 'mask', 'block')"),
        ("block", "; write ladder=('block',)"),
        ("stop", ""),
    ],
)
def test_a_ladder_that_is_one_str_is_refused_with_the_tuple_to_write(ladder: Any, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Policy(ladder=ladder)
    expected = "policy ladder must be a part of ('rewrite', 'mask', 'block') that ends with 'block', "
    assert str(caught.value) == f"{expected}got the str {ladder!r}{advice}"
