"""Judging with earlier text: what is left out because it is clear, and what is not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.context import Unsure, caught, insults
from guardrail import Action, Guard, Policy, Verdict
from guardrail.policy import Policy as PolicyType
from tests.fakes import WordDetector

FIRST, SECOND = "The driver said that you really are one.", "Great big fool in a small and noisy car."
CLEAN = "The weather in the valley is fine today."
SHORT = Policy(segment_min=4, segment_max=60, context=40, ladder=("mask", "block"))


class PairDetector:
    """Flags a text with ``one`` and ``fool`` in it, doubts one with either, and calls any other clear."""

    def __init__(self, *, tells: bool = True) -> None:
        self.tells = tells
        self.texts: list[str] = []

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        self.texts += texts
        return [self.judge(text) for text in texts]

    def judge(self, text: str) -> Verdict:
        found = sum(word in text for word in ("one", "fool"))
        score = (0.05, 0.3, 0.9)[found]
        return Verdict({"toxicity": score}, found == 2, clear=self.tells and found == 0)


def guard(detector: object, policy: PolicyType | None = None) -> Guard:
    policy = policy or Policy(ladder=("mask", "block"))
    return Guard(policy=policy, detector=detector, lexicon=WordDetector(), rewriter=None)  # type: ignore[arg-type]


def test_clear_segments_are_judged_once() -> None:
    detector = PairDetector()
    guard(detector).check(f"{CLEAN} {CLEAN} {CLEAN}")
    assert detector.texts == [CLEAN] * 3


def test_a_doubtful_segment_is_judged_with_clear_text_before_and_behind_it() -> None:
    detector = PairDetector()
    guard(detector).check(f"{CLEAN} {FIRST} {CLEAN}")
    assert f"{CLEAN} {FIRST}" in detector.texts
    assert any(text.endswith(f"{FIRST} {CLEAN}") for text in detector.texts)


def test_an_insult_in_two_sentences_is_found() -> None:
    outcome = guard(PairDetector()).check(f"{CLEAN} {FIRST} {SECOND} {CLEAN}")
    assert outcome.action is Action.REMOVED
    assert [edit.before for edit in outcome.edits] == [SECOND]


def test_a_detector_that_cannot_tell_judges_every_segment_twice() -> None:
    detector = PairDetector(tells=False)
    guard(detector).check(f"{CLEAN} {CLEAN}")
    assert detector.texts == [CLEAN, CLEAN, f"{CLEAN} {CLEAN}"]


@pytest.mark.parametrize("policy", [{"threshold": 0.1}, {"thresholds": {"toxicity": 0.14}}])
def test_clear_is_not_enough_where_the_policy_is_stricter(policy: dict[str, float]) -> None:
    detector = PairDetector()
    strict = Policy(ladder=("mask", "block"), **policy)  # type: ignore[arg-type]
    guard(detector, strict).check(f"{CLEAN} {CLEAN}")
    assert f"{CLEAN} {CLEAN}" in detector.texts


def test_a_lenient_policy_leaves_clear_text_out() -> None:
    detector = PairDetector()
    guard(detector, Policy(ladder=("mask", "block"), threshold=0.6)).check(f"{CLEAN} {CLEAN}")
    assert detector.texts == [CLEAN, CLEAN]


def test_a_word_that_the_length_bound_cuts_is_read_as_a_whole() -> None:
    class Whole(PairDetector):
        def judge(self, text: str) -> Verdict:
            return Verdict({"toxicity": 0.9 * ("villain" in text)}, "villain" in text, clear=True)

    text = "x" * 396 + "villain" + "x" * 300
    assert guard(Whole()).check(text).action is Action.REMOVED


def test_what_is_too_far_away_raises_no_doubt() -> None:
    detector = PairDetector()
    far = [CLEAN.replace("today", f"on day {number}") for number in range(9)]
    guard(detector).check(" ".join([FIRST, *far]))
    assert sum(text.startswith(far[-1]) for text in detector.texts) == 1
    assert not any(text != far[-1] and text.endswith(far[-1]) for text in detector.texts)


@pytest.mark.parametrize("words", [3, 6, 12])
def test_a_character_of_a_text_in_doubt_is_judged_less_than_twice_on_average(words: int) -> None:
    detector = PairDetector(tells=False)
    text = " ".join(f"Number {number} {'and more ' * words}here." for number in range(2000 // words))
    guard(detector).check(text)
    judged = sum(map(len, detector.texts))
    assert 1.3 * len(text) < judged <= 1.5 * len(text) + 4 * Policy().context


def test_a_segment_that_is_left_out_is_read_with_a_later_one() -> None:
    found = 0
    for place in range(30, 54):
        sentences = [CLEAN.replace("today", f"on day {number}") for number in range(place)]
        text = " ".join([*sentences, "The driver is one.", "He is a big fool too.", *sentences[:6]])
        found += guard(PairDetector(tells=False)).check(text).action is Action.REMOVED
    assert found >= 12


def test_what_stands_behind_a_flagged_segment_is_judged_without_it() -> None:
    detector = PairDetector(tells=False)
    guard(detector).check(f"{CLEAN} You are one great fool of a man. {CLEAN} {CLEAN}")
    assert f"{CLEAN} {CLEAN}" in detector.texts
    assert not any("fool" in text and text.endswith(CLEAN) for text in detector.texts)


@given(
    st.lists(st.sampled_from(["one", "fool", "cat.", "mat!", "a\n", "x" * 30, "\n\n"]), max_size=25),
    st.data(),
)
def test_streamed_equals_unstreamed_where_clear_text_is_left_out(
    words: list[str], data: st.DataObject
) -> None:
    text = " ".join(words)
    shared = guard(PairDetector(), SHORT)
    expected = shared.check(text)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    chunks = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    stream = shared.stream(chunks)
    assert "".join(stream) == expected.text
    assert stream.outcome is not None
    assert replace(stream.outcome, timings=expected.timings) == expected


@given(
    st.lists(st.sampled_from(["one", "fool", "cat.", "mat!", "a\n", "\n\n"]), max_size=20),
    st.lists(st.sampled_from(["one", "fool", "cat."]), max_size=6),
)
def test_no_segment_depends_on_later_text(words: list[str], later: list[str]) -> None:
    shared, text = guard(PairDetector(), SHORT), " ".join(words)
    pieces: list[str] = []
    with shared.stream([text, " ".join(later)]) as stream:
        pieces += stream
    alone: list[str] = []
    for piece in shared.stream([text]):
        alone.append(piece)
    settled = len("".join(alone)) - len(alone[-1]) if alone else 0
    assert "".join(pieces)[:settled] == "".join(alone)[:settled]


def test_the_set_holds_200_insults_over_two_or_three_sentences() -> None:
    lines = (Path(__file__).parents[2] / "benchmarks" / "split_insults.txt").read_text().splitlines()
    parts = [line.split(" / ") for line in lines if line and not line.startswith("#")]
    assert len(parts) == len(insults()) == len(set(insults())) == 200
    assert {len(of_text) for of_text in parts} == {2, 3}


@pytest.mark.slow
def test_no_split_insult_is_lost_because_its_parts_are_clear() -> None:
    ladder = ("mask", "block")
    default, wide, alone = (
        caught(Guard(policy=Policy(ladder=ladder, context=context), detector=detector), insults()[::2])  # type: ignore[arg-type]
        for context, detector in ((100, None), (200, Unsure()), (0, None))
    )
    assert default >= wide > alone


def test_shipped_models_give_the_same_outcome_for_every_way_of_cutting_a_split_insult() -> None:
    shared, drawn = Guard(policy=Policy(ladder=("mask", "block"))), random.Random(3)
    for text in insults()[::8]:
        expected = shared.check(text)
        places = sorted(drawn.randint(0, len(text)) for _ in range(5))
        chunks = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
        assert "".join(shared.stream(chunks)) == expected.text
