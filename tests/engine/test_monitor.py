"""Monitor mode: everything is judged and recorded, and nothing is changed, blocked or held back."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from guardrail import Action, Guard, Outcome, Policy, Verdict, detox_guard
from guardrail.errors import UsageError
from tests.fakes import BAD, WordDetector, WordGuard, WordRewriter
from tests.streaming import CLEAN, TOXIC, cut
from tests.waiting import PATIENCE

MONITOR = Policy(enforce=False)
WORDS = [
    *BAD,
    "the",
    "cat.",
    "sat!",
    "on",
    "a\n",
    "\n\n",
    "- x",
    "`code`",
    "```\n",
    "\ud800",
    "…",
    "\r\n",
    "",
]
LADDERS: dict[str, tuple[Any, ...]] = {
    "rewritten": ("rewrite", "mask", "block"),
    "masked": ("mask", "block"),
    "blocked": ("block",),
}


class HangingDetector(WordDetector):
    """Answers once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        assert self.go.wait(PATIENCE)
        return super().detect(texts)


def guard(policy: Policy = MONITOR, **arguments: Any) -> Guard:
    return WordGuard(policy=policy, **arguments)


def heard() -> tuple[list[Outcome], threading.Event, Any]:
    """Outcomes as a hook hears them, and an event that is set with the first."""
    outcomes: list[Outcome] = []
    told = threading.Event()

    def hook(outcome: Outcome) -> None:
        outcomes.append(outcome)
        told.set()

    return outcomes, told, hook


@pytest.mark.parametrize("would", LADDERS)
@pytest.mark.parametrize("block", ["segment", "whole", "raise"])
def test_a_text_passes_and_the_outcome_says_what_would_be_done(would: str, block: Any) -> None:
    text = f"{CLEAN} {TOXIC} {CLEAN}"
    outcome = guard(Policy(enforce=False, ladder=LADDERS[would], block=block)).check(text)
    assert (outcome.text, outcome.action, outcome.would) == (text, Action.PASSED, Action(would))
    assert not outcome.changed
    (edit,) = outcome.edits
    assert (edit.action, edit.would, edit.after) == (Action.PASSED, Action(would), edit.before)
    assert text[edit.start : edit.end] == edit.before
    assert outcome.verdict_after == outcome.verdict
    assert outcome.verdict.flagged


def test_a_clean_text_would_pass() -> None:
    assert guard().check(CLEAN).would is Action.PASSED
    assert guard(Policy()).check(CLEAN).would is None


def test_what_follows_a_segment_that_would_be_blocked_is_judged_too() -> None:
    outcome = guard(Policy(enforce=False, ladder=("block",))).check(f"{TOXIC} {CLEAN} {TOXIC}")
    assert [edit.would for edit in outcome.edits] == [Action.BLOCKED] * 2


def test_the_rewriter_is_not_asked() -> None:
    rewriter = WordRewriter()
    assert guard(rewriter=rewriter).check(TOXIC).would is Action.REWRITTEN
    assert rewriter.calls == []


def test_segments_over_the_budget_would_be_masked() -> None:
    outcome = guard(Policy(enforce=False, max_rewrites=1)).check(f"{TOXIC}\n\n{TOXIC}")
    assert [edit.would for edit in outcome.edits] == [Action.REWRITTEN, Action.MASKED]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), st.data())
def test_whatever_the_text_and_the_chunks_nothing_changes(text: str, data: st.DataObject) -> None:
    chunks = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=9)))
    watching = guard()
    stream = watching.stream(chunks)
    assert list(stream) == chunks
    whole = watching.check(text)
    assert whole.text == text
    judged = stream.judged()
    assert (judged.text, judged.edits, judged.would) == (text, whole.edits, whole.would)


@settings(max_examples=60)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
def test_the_same_segments_are_flagged_as_by_an_enforcing_policy(text: str) -> None:
    ladder = ("mask", "block")
    done = guard(Policy(ladder=ladder)).check(text)
    monitored = guard(Policy(ladder=ladder, enforce=False)).check(text)
    assert [(edit.start, edit.end, edit.action) for edit in done.edits] == [
        (edit.start, edit.end, edit.would) for edit in monitored.edits
    ]
    assert monitored.would == done.action


def test_every_chunk_goes_out_before_the_detector_is_asked() -> None:
    detector = WordDetector()
    seen: list[str] = []

    def chunks() -> Iterator[str]:
        for chunk in (TOXIC, "\n\n", CLEAN):
            yield chunk
            assert seen[-1] == chunk  # it was out before the next was pulled
            assert detector.calls == []

    stream = guard(detector=detector).stream(chunks())
    for chunk in stream:
        seen.append(chunk)
    assert stream.judged().would is Action.REWRITTEN


def test_a_detector_that_hangs_holds_up_no_stream_and_is_recorded() -> None:
    detector = HangingDetector()
    outcomes, told, hook = heard()
    watching = guard(Policy(enforce=False, detect_timeout=0.01), detector=detector, on_outcome=hook)
    stream = watching.stream([TOXIC, CLEAN])
    assert list(stream) == [TOXIC, CLEAN]
    assert told.wait(PATIENCE)
    assert outcomes[0].degraded == ("detector_deadline",)
    assert outcomes[0].would is not Action.PASSED
    assert (stream.judged().text, stream.judged().action) == (TOXIC + CLEAN, Action.PASSED)
    detector.go.set()


def test_until_its_verdict_a_stream_is_pending() -> None:
    detector = HangingDetector()
    stream = guard(detector=detector).stream([TOXIC])
    assert stream.outcome is None
    with pytest.raises(UsageError, match="has not ended"):
        stream.judged()
    assert list(stream) == [TOXIC]
    assert stream.outcome is not None
    assert (stream.outcome.text, stream.outcome.degraded, stream.outcome.would) == (TOXIC, ("pending",), None)
    with pytest.raises(TimeoutError):
        stream.judged(0.001)
    detector.go.set()
    assert stream.judged(PATIENCE) == stream.outcome
    assert stream.outcome.degraded == ()


def test_an_asynchronous_stream_passes_on_chunks_while_the_detector_hangs() -> None:
    detector = HangingDetector()

    async def chunks() -> AsyncIterator[str]:
        yield TOXIC
        yield CLEAN

    async def run() -> Outcome:
        stream = guard(detector=detector).astream(chunks())
        assert [chunk async for chunk in stream] == [TOXIC, CLEAN]
        assert stream.outcome is not None
        assert stream.outcome.degraded == ("pending",)
        detector.go.set()
        return await stream.judged()

    assert asyncio.run(run()).would is Action.REWRITTEN


def test_pushed_texts_pass_at_once() -> None:
    outcomes, told, hook = heard()
    text = guard(on_outcome=hook).push_stream()
    assert list(text.push(TOXIC)) == [TOXIC]
    assert text.outcome is None
    assert list(text.push(None)) == []
    assert told.wait(PATIENCE)
    assert [(one.text, one.would) for one in outcomes] == [(TOXIC, Action.REWRITTEN)]
    text.close()
    assert len(outcomes) == 1


def test_a_stream_that_is_left_is_judged_as_far_as_it_was_shown() -> None:
    outcomes, told, hook = heard()
    with guard(on_outcome=hook).stream([TOXIC, CLEAN]) as stream:
        next(stream)
    assert told.wait(PATIENCE)
    assert outcomes[0].text == TOXIC
    assert outcomes[0].degraded == ("unfinished",)
    assert outcomes[0].would is Action.REWRITTEN


def test_an_error_of_the_source_reaches_the_reader_and_what_was_shown_is_judged() -> None:
    outcomes, told, hook = heard()

    def chunks() -> Iterator[str]:
        yield TOXIC
        raise RuntimeError("the model broke")

    with pytest.raises(RuntimeError, match="the model broke"):
        list(guard(on_outcome=hook).stream(chunks()))
    assert told.wait(PATIENCE)
    assert outcomes[0].text == TOXIC


def test_a_stream_that_is_dropped_is_judged() -> None:
    outcomes, told, hook = heard()
    watching = guard(on_outcome=hook)
    next(watching.stream([TOXIC, CLEAN]))
    gc.collect()
    assert told.wait(PATIENCE)
    assert outcomes[0].text == TOXIC


def test_texts_beyond_the_queue_are_not_judged_and_say_so() -> None:
    detector = HangingDetector()
    watching = guard(Policy(enforce=False, queue=1), detector=detector)
    first, second = watching.stream([TOXIC]), watching.stream([TOXIC])
    assert list(first) == list(second) == [TOXIC]
    assert second.judged().degraded == ("monitor_overload",)
    detector.go.set()
    assert first.judged().degraded == ()


@pytest.mark.parametrize("on_error", ["closed", "open", "lexicon", "raise"])
def test_a_detector_that_breaks_raises_and_changes_nothing(on_error: Any) -> None:
    def broken(texts: Sequence[str]) -> list[Verdict]:
        raise ValueError("no")

    outcome = guard(Policy(enforce=False, on_error=on_error), detector=broken).check(TOXIC)
    assert (outcome.text, outcome.degraded) == (TOXIC, ("detector_error",))
    assert guard(Policy(enforce=False, on_error=on_error), detector=broken).moderate([TOXIC]) == [TOXIC]


class BrokenLog:
    def record(self, interventions: object, /) -> None:
        raise RuntimeError("disk full")


def test_an_audit_that_fails_is_logged_and_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="guardrail")
    watching = guard(audit=BrokenLog())
    assert watching.check(TOXIC).text == TOXIC
    stream = watching.stream([TOXIC])
    assert list(stream) == [TOXIC]
    assert stream.judged().would is Action.REWRITTEN
    assert len(caplog.messages) == 2
    assert all("not recorded: RuntimeError" in message for message in caplog.messages)


def test_a_hook_that_raises_behind_a_stream_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def hook(outcome: Outcome) -> None:
        raise RuntimeError(outcome.text)

    stream = guard(on_outcome=hook).stream([TOXIC])
    assert list(stream) == [TOXIC]
    assert stream.judged().would is Action.REWRITTEN
    assert "RuntimeError" in caplog.text
    assert "idiot" not in caplog.text


def test_a_structured_value_is_the_very_same_object() -> None:
    outcomes, _, hook = heard()
    value = {"answer": [TOXIC], "idiot_key": "you_idiot"}
    watching = guard(Policy(enforce=False, block="raise"), on_outcome=hook)
    for _ in range(2):  # a string that would be blocked is not learned as clean
        assert watching.moderate(value) is value
    assert asyncio.run(watching.amoderate(value)) is value
    assert [one.would for one in outcomes].count(Action.BLOCKED) >= 3


def test_decorated_functions_give_what_they_gave() -> None:
    outcomes, told, hook = heard()
    arguments: dict[str, Any] = {"guard": guard(on_outcome=hook)}

    @detox_guard(**arguments)
    def plain() -> str:
        return TOXIC

    @detox_guard(**arguments)
    def chunks() -> Iterator[str]:
        yield TOXIC

    @detox_guard(**arguments)
    async def coroutine() -> str:
        return TOXIC

    assert plain() == TOXIC
    assert asyncio.run(coroutine()) == TOXIC
    assert [one.would for one in outcomes] == [Action.REWRITTEN] * 2
    told.clear()
    assert list(chunks()) == [TOXIC]
    assert told.wait(PATIENCE)
    assert outcomes[-1].would is Action.REWRITTEN


def test_the_outcome_as_json_fits_the_published_schema() -> None:
    for policy in (MONITOR, Policy()):
        row = guard(policy).check(f"{TOXIC} {CLEAN}").to_dict()
        Draft202012Validator(Outcome.json_schema()).validate(row)
        assert (row["would"] is None) is policy.enforce
        assert (row["edits"][0]["would"] is None) is policy.enforce
    json.dumps(row)


def test_a_summary_says_what_would_be_done() -> None:
    outcome = guard(Policy(enforce=False, ladder=("mask", "block"))).check(TOXIC)
    assert outcome.summary().startswith(
        "Monitor mode, nothing was changed. 1 flagged sentence: 1 would be masked."
    )
    assert "would have its toxic words masked" in outcome.summary()
    assert guard().check(CLEAN).summary() == "Monitor mode, nothing was changed. Nothing was flagged."


def test_an_explanation_says_what_would_be_done() -> None:
    lines = list(guard().explain(TOXIC).lines())
    assert "would be given to the rewriter" in lines[0]
    assert not any("in its place" in line for line in lines)


def test_monitored_outcomes_are_logged_without_text(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="guardrail")
    guard().check(TOXIC)
    assert "action=passed would=rewritten" in caplog.text
    assert "idiot" not in caplog.text


def test_a_server_that_only_monitors_does_not_load_the_rewriter(monkeypatch: pytest.MonkeyPatch) -> None:
    watching = guard()

    def opened() -> None:
        raise AssertionError

    monkeypatch.setattr(watching._runner, "open", opened)
    assert watching.load() == ()


def test_judging_goes_on_in_a_copy_of_the_process() -> None:
    """What a forked child would find: an executor whose threads are those of another process."""
    watching = guard()
    first = watching.stream([TOXIC])
    list(first)
    first.judged()
    watching._follower()._process = -1
    second = watching.stream([TOXIC])
    list(second)
    assert second.judged(PATIENCE).would is Action.REWRITTEN


def test_a_monitoring_guard_is_freed_without_the_garbage_collector() -> None:
    watching = guard()
    stream = watching.stream([TOXIC])
    list(stream)
    stream.judged()
    gone = weakref.ref(watching)
    gc.disable()
    try:
        del watching
        assert gone() is None
    finally:
        gc.enable()


def test_text_that_waits_shows_in_no_repr() -> None:
    text = guard().push_stream()
    list(text.push(TOXIC))
    assert "idiot" not in repr(vars(text)) + repr(text)


@pytest.mark.parametrize("value", ["no", 1, None])
def test_enforce_must_be_true_or_false(value: Any) -> None:
    with pytest.raises(Exception, match="policy enforce must be True or False"):
        Policy(enforce=value)


@pytest.mark.parametrize("value", ["two words", "a/b", 7, "x" * 65])
def test_a_name_that_cannot_be_a_label_is_refused(value: Any) -> None:
    with pytest.raises(Exception, match="policy name must be"):
        Policy(name=value)


def test_a_name_does_not_change_the_digest() -> None:
    assert Policy(name="strict").digest() == Policy().digest()
    assert Policy(enforce=False).digest() != Policy().digest()


def test_an_inline_guard_judges_while_it_is_read_and_shares_deadlines() -> None:
    detector = WordDetector()
    inline = guard(detector=detector).inline()
    text = inline.push_stream()
    assert list(text.push(TOXIC)) + list(text.push(None)) == [TOXIC]
    assert text.outcome is not None
    assert text.outcome.would is Action.REWRITTEN
    first = guard()
    assert first.inline()._runner is first._runner
