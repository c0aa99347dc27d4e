from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from guardrail.errors import ConfigError
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Answer, Reward, named
from guardrail_training.rewards.formula import TERMS, read_formula

ANSWERS = [
    Answer(query="you are a fucking idiot", prompt="", response=response)
    for response in ("you are a fucking idiot", "you are wrong", "I like rainy days")
]


def constant(*, value: float = 2.0, name: str = "constant") -> Reward:
    return named(name, lambda answers: [value] * len(answers))


def stand_in(*, model: str, label: str) -> Reward:
    return named("classifier", lambda answers: [float(len(model) + len(label))] * len(answers))


def value_of(formula: str, **terms: Any) -> float:
    known = {"constant": constant, "half": lambda *, name="half": constant(value=0.5, name=name), **terms}
    (value,) = set(read_formula(formula, terms=known)(ANSWERS).total.tolist())
    return float(value)


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("constant", 2),
        ("constant * half - 0.25 * constant", 0.5),
        ("-(constant - 1) * (half + 3)", -3.5),
        ("2 * constant(value=3)", 6),
        ('constant(value=3, name="three") - constant', 1),
        ("constant(value=-1)", None),
        ("constant - constant", 0),
    ],
)
def test_a_formula_means_what_it_says(formula: str, value: float | None) -> None:
    if value is None:
        with pytest.raises(ConfigError, match="written name=value"):
            value_of(formula)
    else:
        assert value_of(formula) == pytest.approx(value)


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("", "is not a formula"),
        ("clean *", "is not a formula: invalid syntax at column"),
        ("1.5", "is a number; name at least one of"),
        ("cleen", "unknown term 'cleen'; known are acceptable, classifier, clean, copy, fluency"),
        ("clean / 2", "only numbers, .* can stand at column 1"),
        ("clean ** 2", "only numbers, .* can stand at column 1"),
        ("__import__('os').system('true')", "only numbers, .* can stand at column 1"),
        ("clean if copy else 1", "only numbers"),
        ("'clean'", "only numbers"),
        ("length(most=[1])", "settings of a term are written name=value"),
        ("length(**{})", "settings of a term are written name=value"),
        ("length(least=1)", "term 'length': missing a required argument: 'most'"),
        ("length(size=1)", "term 'length': .*"),
        ("copy(1)", "term 'copy': .*'model'"),
        ("clean(label='rude')", "label of clean must be one of toxicity"),
        ("classifier('a/b', label='x')", "pin revision="),
        ("length(most=3) - length(most=4)", "two different rewards are called length"),
    ],
)
def test_what_is_no_formula_is_one_clear_error_and_nothing_is_executed(formula: str, said: str) -> None:
    with pytest.raises(Exception, match=said) as caught:
        read_formula(formula)

    assert isinstance(caught.value, ValueError)


def test_every_term_takes_a_name() -> None:
    import inspect

    assert all("name" in inspect.signature(term).parameters for term in TERMS.values())


def test_the_default_reward_without_fluency_prefers_a_clean_rewrite_to_a_copy_and_to_another_subject() -> (
    None
):
    reward = read_formula("clean * meaning - 0.5 * copy")

    copy, rewrite, elsewhere = reward(ANSWERS).total.tolist()

    assert rewrite > elsewhere > copy
    assert reward.formula == "((clean * meaning) - (0.5 * copy))"
    assert any(len(model) == 64 for model in reward.models)  # the detector, by its sha256


@pytest.mark.parametrize(
    ("formula", "kept"),
    [
        ("0.25 * clean(output='logit')", "(0.25 * clean(output='logit'))"),
        ("length(most=4, least=1)", "length(least=1, most=4)"),
        ("copy(name='same') - 0.1234567890123", "(copy(name='same') - 0.1234567890123)"),
        ("-(copy + 2e-7) * (3 - overlap)", "((-1 * (copy + 2e-07)) * (3 - overlap))"),
        ('length(most=2, name="a\'b") - length(most=3)', """(length(most=2, name="a'b") - length(most=3))"""),
        ("clean(label='insult') * clean(name='any')", "(clean(label='insult') * clean(name='any'))"),
    ],
)
def test_a_reward_s_formula_has_its_settings_and_reads_as_the_same_reward(formula: str, kept: str) -> None:
    answers = [replace(answer, references=("you are not right",)) for answer in ANSWERS]
    reward = read_formula(formula)

    again = read_formula(reward.formula)

    assert reward.formula == again.formula == kept
    assert reward(answers).total.tolist() == again(answers).total.tolist()
    assert list(reward(answers).terms) == list(again(answers).terms)


def test_rewards_of_other_settings_have_other_formulas_and_logs_call_their_terms_by_name() -> None:
    shorter, longer = (read_formula(f"length(least=1, most={most})") for most in (2, 9))

    assert shorter.formula != longer.formula
    assert list(shorter.scores) == list(longer.scores) == ["length"]


def test_a_classifier_s_formula_names_its_model_as_a_setting() -> None:
    reward = read_formula("classifier('folder', label='ok')", terms={"classifier": stand_in})

    assert reward.formula == "classifier(label='ok', model='folder')"
    assert read_formula(reward.formula, terms={"classifier": stand_in}).formula == reward.formula


@pytest.mark.base
def test_the_default_reward_can_be_read() -> None:
    scored = read_formula(PpoSettings().reward)(ANSWERS)

    assert sorted(scored.terms) == ["clean", "copy", "fluency", "meaning"]
    assert all(math.isfinite(value) for value in scored.total)
    assert int(np.argmin(scored.total)) == 0
