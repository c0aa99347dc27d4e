"""All drivers agree, and one bad text among many fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail import Guard, Outcome, Policy, Verdict
from guardrail.outcome import Timings
from tests.fakes import BAD, BagEmbedder, WordDetector, WordRewriter

POLICY = Policy(detect_timeout=None, rewrite_timeout=None, segment_min=4, segment_max=60, max_rewrites=3)


def guard(detector: WordDetector | None = None, policy: Policy = POLICY) -> Guard:
    return Guard(
        policy=policy,
        detector=detector or WordDetector(),
        rewriter=WordRewriter(),
        embedder=BagEmbedder(),
        lexicon=WordDetector(),
    )


def timeless(outcome: Outcome) -> Outcome:
    return replace(outcome, timings=Timings())


TEXTS = st.lists(
    st.sampled_from([*BAD, "the", "cat.", "sat!", "on", "mat?", "\n\n", "- x", "`a`"]), max_size=30
).map(" ".join)


@pytest.mark.slow
@given(st.lists(TEXTS, max_size=6))
def test_check_many_gives_what_check_gives(texts: list[str]) -> None:
    one_by_one = [timeless(guard().check(text)) for text in texts]
    assert [timeless(outcome) for outcome in guard().check_many(texts)] == one_by_one


def test_acheck_gives_what_check_gives() -> None:
    text = "What a lovely day it is. The driver of that bus is an idiot. See you tomorrow."
    assert timeless(asyncio.run(guard().acheck(text))) == timeless(guard().check(text))


def test_check_many_shares_model_calls() -> None:
    detector = WordDetector()
    guard(detector).check_many(["The weather in the valley is fine."] * 64)
    assert len(detector.calls) == 1


def test_a_model_call_holds_no_more_texts_than_the_policy_says() -> None:
    detector = WordDetector()
    guard(detector, replace(POLICY, batch=8)).check_many(["The weather is fine. " * 5] * 30)
    assert max(len(call) for call in detector.calls) <= 8


class Fussy(WordDetector):
    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        if any("poison" in text for text in texts):
            raise ValueError("poison")
        return super().detect(texts)


@pytest.mark.parametrize("on_error", ["closed", "open", "lexicon"])
def test_a_text_that_breaks_the_detector_leaves_the_others_as_they_are(on_error: str) -> None:
    texts = ["The weather is fine.", "There is poison here.", "The driver is an idiot."]
    policy = replace(POLICY, on_error=on_error)  # type: ignore[arg-type]  # a parametrised literal
    together = guard(Fussy(), policy).check_many(texts)
    alone = [guard(Fussy(), policy).check(text) for text in texts]
    assert [timeless(a) for a in together] == [timeless(b) for b in alone]
    assert together[0].degraded == together[2].degraded == ()
    assert together[1].degraded == ("detector_error",)


def test_timings_add_up() -> None:
    timings = guard().check("The driver of that bus is an idiot.").timings
    assert 0 < timings.detect + timings.rewrite + timings.embed <= timings.total
