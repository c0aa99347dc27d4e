"""Outcomes as JSON, checked with their schema, and in plain words."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import guardrail
from guardrail import Action, Edit, Guard, Outcome, Policy, Span, Verdict
from guardrail.outcome import Failure, Timings
from guardrail.outcome.reasons import PLACES, REASONS, in_words
from guardrail.text.checks import CHECKS
from tests.fakes import WordGuard
from tests.streaming import CLEAN, TOXIC

CANARY = "canaryword5813"
TEXT = f"{CLEAN} {TOXIC} The {CANARY} weather is fine, but you are a moron."


def raises(texts: Sequence[str], *rest: object) -> Any:
    raise ValueError(texts[0])


OUTCOMES: dict[str, Callable[[], Outcome]] = {
    "passed": lambda: WordGuard().check(CLEAN),
    "empty": lambda: WordGuard().check(""),
    "rewritten": lambda: WordGuard().check(TEXT),
    "masked": lambda: WordGuard(rewriter=None).check(TEXT),
    "removed": lambda: WordGuard(
        rewriter=None, detector=lambda texts: [Verdict({"insult": 0.9}, True) for _ in texts]
    ).check(TEXT),
    "blocked": lambda: WordGuard(policy=Policy(ladder=("block",))).check(TEXT),
    "without detector": lambda: WordGuard(detector=raises).check(TEXT),
    "without rewriter": lambda: WordGuard(rewriter=raises).check(TEXT),
    "with a verifier": lambda: WordGuard(
        policy=Policy(acceptable=0.5), verifier=lambda sources, candidates: [0.7] * len(sources)
    ).check(TEXT),
    "not read": lambda: WordGuard(
        detector=lambda texts: [Verdict({"insult": 0.1}, False, unsupported=True) for _ in texts]
    ).check(TEXT),
    "half a surrogate pair": lambda: WordGuard().check("odd \udcff byte, you moron"),
}


@functools.cache
def validator() -> Any:
    """Reads the published schema, and checks that it is one."""
    jsonschema = pytest.importorskip("jsonschema", reason="in extra dev: pip install jsonschema")
    schema = Outcome.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def require_fitting(row: dict[str, Any]) -> None:
    """Fails where the object is not what the published schema says, once it went through JSON."""
    validator().validate(json.loads(json.dumps(row)))


@pytest.mark.parametrize("kind", OUTCOMES)
@pytest.mark.parametrize("include_text", [True, False])
def test_every_kind_of_outcome_fits_the_schema(kind: str, include_text: bool) -> None:
    require_fitting(OUTCOMES[kind]().to_dict(include_text=include_text))


@pytest.mark.base
def test_an_outcome_of_the_shipped_models_fits_the_schema() -> None:
    outcome = Guard().check("You are a complete idiot. The weather is fine today. I will kill you.")
    assert outcome.changed
    require_fitting(outcome.to_dict())


scores = st.dictionaries(st.text(max_size=5), st.floats(0, 1), max_size=2)
spans = st.lists(st.builds(Span, st.integers(0, 99), st.integers(0, 99)), max_size=2)
verdicts = st.builds(Verdict, scores, st.booleans(), spans, st.booleans())
reasons = st.lists(st.text(min_size=1, max_size=9), unique=True, max_size=2).map(tuple)
edits = st.builds(
    Edit,
    start=st.integers(0, 9),
    end=st.integers(9, 99),
    before=st.text(),
    after=st.text(),
    action=st.sampled_from([action for action in Action if action.rank]),
    verdict=verdicts,
    verdict_after=st.none() | verdicts,
    similarity=st.none() | st.floats(-1, 1),
    acceptable=st.none() | st.floats(0, 1),
    failed_checks=reasons,
)
outcomes = st.builds(
    Outcome,
    text=st.text(),
    action=st.sampled_from(list(Action)),
    verdict=verdicts,
    verdict_after=verdicts,
    edits=st.lists(edits, max_size=3).map(tuple),
    degraded=reasons,
    timings=st.builds(Timings, total=st.floats(0, 1000)),
    failures=st.lists(
        st.builds(
            Failure,
            st.sampled_from(PLACES),
            st.text(),
            st.text(),
            st.none() | st.text(),
            st.none() | st.integers(1, 9999),
        ),
        max_size=2,
    ).map(tuple),
)


@settings(max_examples=30, deadline=None)
@given(outcomes)
def test_any_outcome_fits_the_schema(outcome: Outcome) -> None:
    require_fitting(outcome.to_dict())


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"action": "rewriten"}, "action"),
        ({"text": None}, "text"),
        ({"surprise": 1}, "surprise"),
        ({"edits": [{}]}, "required"),
        ({"degraded": "rewriter_missing"}, "array"),
        ({"verdict": {"scores": {"insult": 1.5}, "flagged": 1, "spans": [], "unsupported": False}}, "1.5"),
    ],
)
def test_the_schema_refuses_what_no_outcome_is(change: dict[str, Any], place: str) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="in extra dev: pip install jsonschema")
    with pytest.raises(jsonschema.ValidationError, match=place):
        require_fitting(OUTCOMES["rewritten"]().to_dict() | change)


def test_the_schema_names_exactly_what_an_outcome_has() -> None:
    schema = Outcome.json_schema()
    row = OUTCOMES["without rewriter"]().to_dict()
    for named, found in (
        (schema, row),
        (schema["$defs"]["edit"], row["edits"][0]),
        (schema["$defs"]["verdict"], row["verdict"]),
        (schema["$defs"]["failure"], row["failures"][0]),
        (schema["properties"]["counts"], row["counts"]),
        (schema["properties"]["milliseconds"], row["milliseconds"]),
    ):
        assert list(named["properties"]) == list(found)
    assert schema["properties"]["action"]["enum"] == [str(action) for action in Action]
    assert schema["$defs"]["failure"]["properties"]["place"]["enum"] == list(PLACES)
    told = {field.name for field in fields(Outcome)} - {"timings"} | {"milliseconds", "counts"}
    assert set(row) == told


@pytest.mark.parametrize("kind", OUTCOMES)
def test_without_texts_neither_dict_nor_summary_shows_any(kind: str) -> None:
    outcome = OUTCOMES[kind]()
    shown = json.dumps(outcome.to_dict(include_text=False)) + outcome.summary()
    for word in (CANARY, "weather", "driver", "moron", "person"):
        assert word not in shown


def test_a_dict_shows_texts_unless_they_are_left_out() -> None:
    row = OUTCOMES["rewritten"]().to_dict()
    assert CANARY in row["text"]
    assert row["edits"][0]["before"] == TOXIC


def test_a_summary_says_what_was_done_and_why() -> None:
    summary = OUTCOMES["rewritten"]().summary()
    first, second, third = summary.splitlines()
    assert first == "2 flagged sentences: 2 rewritten."
    begin = len(CLEAN) + 1
    assert second.startswith(f"- characters {begin}-{begin + len(TOXIC)} (toxicity 0.90): rewritten;")
    assert "it is the original again (copy)" in second
    assert third.startswith("- characters ")


def test_a_summary_shows_texts_if_asked_in_quotes_with_control_characters_escaped() -> None:
    guard = WordGuard(rewriter=lambda texts, n: [["You are a \x1b[31m person today."] for _ in texts])
    summary = guard.check("You are a \x1b[31m moron today.").summary(include_text=True)
    assert r"'You are a \x1b[31m moron today.' -> " in summary
    assert "\x1b" not in summary


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("passed", "Nothing was changed."),
        ("masked", "2 flagged sentences: 2 masked."),
        ("removed", "3 removed."),
        ("blocked", "1 flagged sentence: 1 blocked."),
        ("blocked", "blocked, with all that follows."),
        ("without detector", "No full pass: the detector failed (detector_error)."),
        ("without rewriter", "No full pass: the rewriter failed (rewriter_error)."),
        ("not read", "No full pass: the detector does not know the script or language (unsupported_text)."),
    ],
)
def test_a_summary_is_in_plain_words(kind: str, told: str) -> None:
    assert told in OUTCOMES[kind]().summary()


def test_every_check_has_words() -> None:
    assert {check.name for check in CHECKS} <= set(REASONS)
    for place in PLACES:
        for failure in ("error", "invalid", "deadline", "circuit_open"):
            assert in_words(f"{place}_{failure}").startswith(f"the {place} ")
    assert in_words("reason_of_a_stranger") == "reason_of_a_stranger"


def test_every_reason_that_the_flow_gives_has_words() -> None:
    folder = Path(guardrail.__file__).parent
    sources = "".join(path.read_text(encoding="utf-8") for path in (folder / "engine").glob("*.py"))
    found = set(re.findall(r'\.(?:refuse|degrade)\("([\w:]+)"\)', sources))
    assert len(found) > 7
    assert found <= set(REASONS)
