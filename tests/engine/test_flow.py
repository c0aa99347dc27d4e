"""The flow driven by hand: every step it asks for, every decision it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail import Action, Outcome, Policy, Span, Verdict
from guardrail.engine.flow import moderate
from guardrail.engine.steps import Detect, Embed, Read, Release, Request, Rewrite, Verify
from guardrail.errors import DeadlineError, PluginError
from tests.fakes import BAD, BagEmbedder, WordDetector, WordRewriter

TOXIC = "The driver of that bus is an idiot."
CLEAN = "The weather in the valley is fine today."


class Hand:
    """Drives a flow, answers with fakes, and keeps what was asked and released."""

    def __init__(self, policy: Policy | None = None, **answers: Any) -> None:
        self.policy = policy or Policy()
        self.answers = answers
        self.asked: list[Request] = []
        self.released: list[str] = []

    def run(self, *chunks: str) -> Outcome:
        flow = moderate(self.policy)
        source = iter(chunks)
        reply: Any = None
        failure: PluginError | None = None
        try:
            while True:
                request = flow.throw(failure) if failure else flow.send(reply)
                failure, reply = None, None
                self.asked.append(request)
                if isinstance(request, Read):
                    reply = next(source, None)
                elif isinstance(request, Release):
                    self.released.append(request.text)
                else:
                    try:
                        reply = self.answer(request)
                    except PluginError as error:
                        failure = error
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    def answer(self, request: Request) -> Any:
        name = type(request).__name__.lower()
        if isinstance(request, Detect) and request.lexicon:
            name = "lexicon"
        if name in self.answers:
            return self.answers[name](request)
        if isinstance(request, Detect):
            return WordDetector().detect(request.texts)
        if isinstance(request, Rewrite):
            return WordRewriter().rewrite(request.texts, request.n)
        assert isinstance(request, Embed)
        return BagEmbedder().embed(request.texts)


def broken(reason: str) -> Callable[[Any], Any]:
    def answer(request: Any) -> Any:
        raise PluginError("broken", reason=reason)

    return answer


def test_clean_text_comes_out_as_it_went_in() -> None:
    text = f"# Title\n\n- {CLEAN}\n\n\t{CLEAN}  \r\n"
    outcome = Hand().run(text)
    assert outcome.text == text
    assert outcome.action is Action.PASSED
    assert not outcome.edits
    assert not outcome.degraded


@pytest.mark.parametrize("text", ["", " ", "\n\n\t"])
def test_blank_text_passes_without_a_model_call(text: str) -> None:
    hand = Hand()
    assert hand.run(text).text == text
    assert all(isinstance(request, (Read, Release)) for request in hand.asked)


def test_only_the_flagged_segment_changes() -> None:
    outcome = Hand().run(f"> - {CLEAN} {TOXIC}\n\n{CLEAN}")
    assert outcome.text == f"> - {CLEAN} {TOXIC.replace('idiot', 'person')}\n\n{CLEAN}"
    assert outcome.action is Action.REWRITTEN
    (edit,) = outcome.edits
    assert f"> - {CLEAN} {TOXIC}\n\n{CLEAN}"[edit.start : edit.end] == edit.before == TOXIC
    assert edit.similarity is not None
    assert edit.similarity > 0.8


def test_the_outcome_names_the_checks_that_refused_other_candidates() -> None:
    (edit,) = Hand().run(TOXIC).edits
    assert {"toxic", "lexicon", "copy"} <= set(edit.failed_checks)


def test_verdicts_before_and_after_are_the_strongest_of_all_segments() -> None:
    outcome = Hand().run(f"{CLEAN} {TOXIC}")
    assert outcome.verdict.flagged
    assert outcome.verdict.scores["toxicity"] == pytest.approx(0.9)
    (span,) = outcome.verdict.spans
    assert f"{CLEAN} {TOXIC}"[span.start : span.end] == "idiot"
    assert not outcome.verdict_after.flagged


def test_without_a_passing_candidate_the_spans_are_masked() -> None:
    outcome = Hand(rewrite=lambda request: [["You damn idiot."]]).run(TOXIC)
    assert outcome.action is Action.MASKED
    assert outcome.text == TOXIC.replace("idiot", "i****")


def test_a_mask_template_replaces_the_words() -> None:
    outcome = Hand(Policy(mask="[removed]", ladder=("mask", "block"))).run(TOXIC)
    assert outcome.text == TOXIC.replace("idiot", "[removed]")


def test_a_segment_flagged_without_spans_is_removed() -> None:
    def detect(request: Detect) -> list[Verdict]:
        return [Verdict({"toxicity": 0.9}, "idiot" in text) for text in request.texts]

    outcome = Hand(detect=detect, rewrite=lambda request: [[]]).run(f"{CLEAN} {TOXIC}")
    assert outcome.text == f"{CLEAN} [removed]"
    assert outcome.action is Action.REMOVED
    assert outcome.edits[0].failed_checks == ("rewrite:none",)


def test_what_stays_toxic_around_the_masked_spans_is_removed() -> None:
    def detect(request: Detect) -> list[Verdict]:
        return [
            Verdict({"toxicity": 0.9}, True, (Span(19, 22),)) if "driver" in text else Verdict({}, False)
            for text in request.texts
        ]

    outcome = Hand(Policy(ladder=("mask", "block")), detect=detect).run(TOXIC)
    assert outcome.action is Action.REMOVED
    assert outcome.text == "[removed]"
    assert outcome.edits[0].failed_checks == ("mask:toxic",)


def test_function_words_in_a_span_stay_readable() -> None:
    def detect(request: Detect) -> list[Verdict]:
        found = [text.find("a worthless idiot") for text in request.texts]
        return [Verdict({}, i >= 0, (Span(i, i + 17),) if i >= 0 else ()) for i in found]

    policy = Policy(ladder=("mask", "block"))
    assert Hand(policy, detect=detect).run("He is a worthless idiot.").text == "He is a w******** i****."


def test_a_mask_over_a_long_phrase_or_most_of_a_sentence_gives_way_to_removal() -> None:
    policy = Policy(ladder=("mask", "block"))
    outcome = Hand(policy).run("Idiot, moron, damn crap and idiot!")
    assert outcome.text == "[removed]"
    assert outcome.edits[0].failed_checks == ("mask:too_much",)


def harmful(label: str) -> Callable[[Detect], list[Verdict]]:
    def detect(request: Detect) -> list[Verdict]:
        return [
            Verdict({"toxicity": 0.9, label: 0.8}, True, v.spans)
            if v.flagged
            else Verdict({label: 0.0}, False)
            for v in WordDetector().detect(request.texts)
        ]

    return detect


@pytest.mark.parametrize("label", ["threat", "identity_attack", "hate"])
def test_a_threat_or_contempt_for_a_group_is_removed_without_asking_the_rewriter(label: str) -> None:
    hand = Hand(detect=harmful(label))
    outcome = hand.run(f"{CLEAN} {TOXIC}")
    assert outcome.text == f"{CLEAN} [removed]"
    assert outcome.edits[0].failed_checks == ("rewrite:harm",)
    assert not any(isinstance(request, Rewrite) for request in hand.asked)


def test_what_is_flagged_in_an_unknown_language_is_not_rewritten() -> None:
    def detect(request: Detect) -> list[Verdict]:
        return [replace(verdict, unsupported=True) for verdict in WordDetector().detect(request.texts)]

    hand = Hand(detect=detect)
    outcome = hand.run(TOXIC)
    assert outcome.action is Action.MASKED
    assert outcome.edits[0].failed_checks == ("rewrite:unsupported",)
    assert outcome.degraded == ("unsupported_text",)
    assert not any(isinstance(request, Rewrite) for request in hand.asked)


def test_a_policy_may_allow_lossy_rewrites_of_harm_and_the_outcome_says_so() -> None:
    outcome = Hand(Policy(lossy=True), detect=harmful("threat")).run(f"{TOXIC} {CLEAN}")
    assert outcome.text == f"{TOXIC.replace('idiot', 'person')} {CLEAN}"
    assert outcome.action is Action.LOSSY
    assert outcome.counts == {"rewritten": 0, "lossy": 1, "masked": 0, "removed": 0, "blocked": 0}


def test_a_lossy_rewrite_may_leave_facts_out_and_still_no_opposite_in() -> None:
    text = "I hope the driver of bus 9 dies, the idiot."
    stance, kind = "I am angry with the driver.", "I hope the driver of bus 9 lives."
    for policy, after in (
        (Policy(lossy=True, meaning_floor=-1.0), stance),
        (Policy(meaning_floor=-1.0), "[removed]"),
    ):
        hand = Hand(policy, detect=harmful("threat"), rewrite=lambda request: [[kind, stance]])
        assert hand.run(text).text == after


def test_a_policy_may_say_per_label_what_stands_for_removed_text() -> None:
    policy = Policy(removed="[gone]", removals={"threat": "[a threat]"})
    assert Hand(policy, detect=harmful("threat")).run(TOXIC).text == "[a threat]"
    assert Hand(policy, detect=harmful("hate")).run(TOXIC).text == "[gone]"


def test_a_verifier_is_asked_for_what_passes_all_else_and_decides() -> None:
    near, far = "The driver of that bus is a person.", "The driver of that bus is unkind."
    asked: list[Verify] = []

    def verify(request: Verify) -> list[float]:
        asked.append(request)
        return [0.9 if text == far else 0.4 for text in request.texts]

    proposed = [near, far, TOXIC]
    hand = Hand(Policy(acceptable=0.5), rewrite=lambda request: [proposed], verify=verify)
    (edit,) = hand.run(TOXIC).edits
    assert (edit.after, edit.acceptable) == (far, 0.9)
    assert "acceptable" in edit.failed_checks
    assert [(call.texts, call.sources) for call in asked] == [((near, far), (TOXIC, TOXIC))]


def test_without_a_verifier_none_is_asked() -> None:
    hand = Hand()
    assert hand.run(TOXIC).edits[0].acceptable is None
    assert not any(isinstance(request, Verify) for request in hand.asked)


def test_block_keeps_earlier_output_and_releases_nothing_after_it() -> None:
    hand = Hand(Policy(ladder=("block",), refusal="[no]"))
    outcome = hand.run(f"{CLEAN} - {TOXIC} {CLEAN}")
    assert outcome.action is Action.BLOCKED
    assert outcome.text.endswith("[no]")
    assert outcome.text.count(CLEAN) == 1
    assert "".join(hand.released) == outcome.text


def test_block_whole_replaces_the_whole_text() -> None:
    outcome = Hand(Policy(ladder=("block",), block="whole", refusal="[no]")).run(f"{CLEAN} {TOXIC}")
    assert outcome.text == "[no]"


def test_raise_carries_the_clean_prefix_without_a_refusal() -> None:
    outcome = Hand(Policy(ladder=("block",), block="raise")).run(f"{CLEAN} {TOXIC} {CLEAN}")
    assert outcome.text == CLEAN


def test_code_is_removed_between_its_fences_and_never_rewritten() -> None:
    text = f"{CLEAN}\n```\nprint('what an idiot he is, really')\n```\n"
    hand = Hand()
    outcome = hand.run(text)
    assert outcome.text == f"{CLEAN}\n```\n[removed]\n```\n"
    assert not any(isinstance(request, Rewrite) for request in hand.asked)
    assert "rewrite:code" in outcome.edits[0].failed_checks


def test_a_toxic_quotation_is_masked_and_never_rewritten() -> None:
    text = 'He stood up in the hall and said "you are an idiot" to all of them.'
    hand = Hand()
    assert hand.run(text).text == text.replace("idiot", "i****")
    assert not any(isinstance(request, Rewrite) for request in hand.asked)


def test_a_toxic_url_is_hidden_as_a_whole_and_never_rewritten() -> None:
    text = "The plan is on https://example.com/idiot/plan for all of you to read."
    hand = Hand()
    outcome = hand.run(text)
    assert outcome.text == text.replace("https://example.com/idiot/plan", "[removed]")
    assert not any(isinstance(request, Rewrite) for request in hand.asked)
    assert "rewrite:protected" in outcome.edits[0].failed_checks


def test_a_url_that_is_toxic_to_its_end_is_masked_and_never_rewritten() -> None:
    hand = Hand()
    hand.run("The plan is on https://example.com/idiot for all of you to read.")
    assert not any(isinstance(request, Rewrite) for request in hand.asked)


def test_spans_of_a_joint_verdict_are_those_of_the_segment() -> None:
    first, second = "First half of it stands here.", "Bad men of the second half stand here."

    def detect(request: Detect) -> list[Verdict]:
        return [
            Verdict({"toxicity": 0.9}, True, (Span(0, 5), Span(25, len(first) + 8)))
            if first in text and second in text
            else Verdict({}, flagged=False)
            for text in request.texts
        ]

    (edit,) = Hand(Policy(ladder=("mask", "block")), detect=detect).run(f"{first} {second}").edits
    assert edit.verdict.spans == (Span(len(first) + 1, len(first) + 8),)
    assert edit.after == second.replace("Bad men", "B** m**")


def test_words_split_over_short_lines_are_judged_together() -> None:
    def detect(request: Detect) -> list[Verdict]:
        return [
            Verdict({"toxicity": 1.0}, "".join(text.split()).count("idiot") > 0) for text in request.texts
        ]

    assert Hand(detect=detect).run("you\nare\nan\nid\niot\n").action is not Action.PASSED


def test_a_segment_is_flagged_for_what_it_adds_to_earlier_text() -> None:
    def detect(request: Detect) -> list[Verdict]:
        return [
            Verdict({"toxicity": 0.9}, "First half of it" in t and "second half" in t) for t in request.texts
        ]

    first, second = "First half of it stands here.", "And the second half stands here."
    outcome = Hand(Policy(ladder=("mask", "block")), detect=detect).run(f"{first} {second} {CLEAN}")
    assert [edit.before for edit in outcome.edits] == [second]


def test_a_segment_is_not_flagged_for_toxic_text_before_it() -> None:
    outcome = Hand(Policy(ladder=("mask", "block"))).run(f"{TOXIC} {CLEAN} {CLEAN}")
    assert [edit.before for edit in outcome.edits] == [TOXIC]


def test_a_candidate_must_be_clean_after_the_earlier_text_too() -> None:
    def detect(request: Detect) -> list[Verdict]:
        return [
            Verdict({"toxicity": 0.9}, "idiot" in t or ("valley" in t and "person" in t))
            for t in request.texts
        ]

    assert Hand(detect=detect).run(f"{CLEAN} {TOXIC}").action is Action.REMOVED


def test_flagged_segments_beyond_the_budget_start_at_mask() -> None:
    outcome = Hand(Policy(max_rewrites=1)).run(f"{TOXIC} {TOXIC}")
    assert [edit.action for edit in outcome.edits] == [Action.REWRITTEN, Action.MASKED]
    assert outcome.degraded == ("rewrite_budget",)
    assert outcome.edits[1].failed_checks == ("rewrite:budget",)


@pytest.mark.parametrize(
    ("on_error", "action", "kept"),
    [("closed", "blocked", ""), ("open", "passed", TOXIC), ("lexicon", "masked", "")],
)
def test_a_detector_failure_takes_the_error_policy(on_error: Any, action: str, kept: str) -> None:
    hand = Hand(Policy(on_error=on_error), detect=broken("detector_error"))
    outcome = hand.run(TOXIC)
    assert outcome.action == action
    assert kept in outcome.text
    assert ("idiot" in outcome.text) is (on_error == "open")
    assert outcome.degraded == ("detector_error",)


def test_a_failing_word_list_behind_a_failing_detector_blocks() -> None:
    hand = Hand(Policy(on_error="lexicon"), detect=broken("detector_error"), lexicon=broken("lexicon_error"))
    outcome = hand.run(TOXIC)
    assert outcome.action is Action.BLOCKED
    assert outcome.degraded == ("lexicon_error",)


def test_text_known_to_be_toxic_never_passes_because_a_later_call_failed() -> None:
    def detect(request: Detect) -> list[Verdict]:
        if len(request.texts) == 1 and request.texts[0] == TOXIC:
            return WordDetector().detect(request.texts)
        raise PluginError("broken", reason="detector_error")

    outcome = Hand(Policy(on_error="open", batch=1), detect=detect).run(TOXIC)
    assert outcome.action is Action.REMOVED
    assert "idiot" not in outcome.text


def test_a_text_that_breaks_the_detector_does_not_decide_for_its_companions() -> None:
    def detect(request: Detect) -> list[Verdict]:
        if any("poison" in text for text in request.texts):
            raise PluginError("broken", reason="detector_error")
        return WordDetector().detect(request.texts)

    poison = "This one has poison in it, sadly."
    text = f"{TOXIC}\n\n{CLEAN}\n\n{poison}"
    outcome = Hand(Policy(on_error="open", context=0), detect=detect).run(text)
    assert outcome.text == text.replace("idiot", "person")


def test_a_text_that_breaks_the_rewriter_does_not_decide_for_its_companions() -> None:
    def rewrite(request: Rewrite) -> list[list[str]]:
        if any("poison" in text for text in request.texts):
            raise PluginError("broken", reason="rewriter_error")
        return WordRewriter().rewrite(request.texts, request.n)

    poison = "This idiot has poison in it, sadly."
    outcome = Hand(rewrite=rewrite).run(f"{TOXIC}\n\n{poison}\n\n{CLEAN}")
    assert [edit.action for edit in outcome.edits] == [Action.REWRITTEN, Action.MASKED]
    assert outcome.edits[1].failed_checks == outcome.degraded == ("rewriter_error",)


PASSING = [f"The driver of that bus is {word}." for word in ("a person", "unkind", "a human")]
REFUSED = [  # each by another check
    TOXIC,
    "The driver of that bus is a moron.",
    "The driver of that bus is not a person.",
    "The driver of that bus is a person, 9 of them.",
    "The driver of that bus is a person, see https://a.io/b.",
    "...",
]
PROPOSED = st.lists(st.sampled_from([*PASSING, *REFUSED]), min_size=1, max_size=7)


@given(PROPOSED)
def test_the_first_of_the_rewriters_candidates_that_passes_every_check_is_taken(proposed: list[str]) -> None:
    outcome = Hand(rewrite=lambda request: [proposed]).run(TOXIC)
    passing = [text for text in proposed if text in PASSING]
    assert outcome.text == (passing[0] if passing else TOXIC.replace("idiot", "i****"))


@given(PROPOSED, st.dictionaries(st.sampled_from(PASSING), st.sampled_from([0.3, 0.6, 0.9]), min_size=3))
def test_a_verifier_refuses_candidates_and_leaves_their_order_to_the_rewriter(
    proposed: list[str], probabilities: dict[str, float]
) -> None:
    def verify(request: Verify) -> list[float]:
        return [probabilities[text] for text in request.texts]

    hand = Hand(Policy(acceptable=0.5), rewrite=lambda request: [proposed], verify=verify)
    acceptable = [text for text in proposed if probabilities.get(text, 0.0) >= 0.5]
    assert hand.run(TOXIC).text == (acceptable[0] if acceptable else TOXIC.replace("idiot", "i****"))


def test_neither_score_nor_closeness_puts_a_later_candidate_first() -> None:
    first, later = PASSING[:2]
    scores, places = {first: 0.5, later: 0.1}, {TOXIC: [1.0, 0.0], first: [0.6, 0.8], later: [0.8, 0.6]}

    def detect(request: Detect) -> list[Verdict]:
        honest = WordDetector().detect(request.texts)
        return [
            Verdict({"toxicity": scores.get(text, 0.9)}, verdict.flagged, verdict.spans)
            for text, verdict in zip(request.texts, honest, strict=True)
        ]

    def embed(request: Embed) -> Any:
        return np.array([places[text] for text in request.texts])

    (edit,) = Hand(detect=detect, embed=embed, rewrite=lambda request: [[first, later]]).run(TOXIC).edits
    assert (edit.after, edit.similarity) == (first, pytest.approx(0.6))
    assert edit.verdict_after == Verdict({"toxicity": 0.5}, flagged=False)


def test_a_segment_that_only_the_word_list_could_read_is_masked_by_its_spans() -> None:
    outcome = Hand(Policy(on_error="lexicon"), detect=broken("detector_error")).run(f"{CLEAN} {TOXIC}")
    assert outcome.text == f"{CLEAN} {TOXIC}".replace("idiot", "i****")
    assert outcome.degraded == ("detector_error",)


def test_what_the_word_list_finds_around_masked_spans_is_removed() -> None:
    def lexicon(request: Detect) -> list[Verdict]:
        return WordDetector(["driver"]).detect(request.texts)

    outcome = Hand(Policy(ladder=("mask", "block")), lexicon=lexicon).run(TOXIC)
    assert "driver" not in outcome.text
    assert outcome.edits[0].failed_checks == ("mask:toxic",)


@pytest.mark.parametrize(
    ("context", "seen"),
    [(5, "now. "), (10, "now. "), (11, "words now. "), (12, "words now. "), (200, "Some words now. ")],
)
def test_the_context_begins_with_a_whole_word(context: int, seen: str) -> None:
    hand = Hand(Policy(context=context, segment_min=8, batch=1))
    hand.run(f"Some words now. {CLEAN}")
    asked = [text for call in hand.asked if isinstance(call, Detect) for text in call.texts]
    assert asked == ["Some words now.", CLEAN, seen + CLEAN]


@pytest.mark.parametrize("stage", ["rewrite", "embed", "lexicon"])
def test_a_failure_behind_the_detector_leads_to_mask(stage: str) -> None:
    outcome = Hand(**{stage: broken(f"{stage}_down")}).run(TOXIC)
    assert outcome.action is (Action.REMOVED if stage == "lexicon" else Action.MASKED)
    assert "idiot" not in outcome.text
    assert outcome.degraded == (f"{stage}_down",)


def test_a_deadline_is_not_tried_again_segment_by_segment() -> None:
    calls = []

    def late(request: Detect) -> Any:
        calls.append(request)
        raise DeadlineError("late", reason="detector_deadline")

    outcome = Hand(Policy(on_error="open"), detect=late).run(f"{CLEAN} {CLEAN} {CLEAN}")
    assert [len(call.texts) for call in calls] == [2, 1]
    assert outcome.degraded == ("detector_deadline",)


def test_unsupported_text_passes_as_degraded() -> None:
    outcome = Hand(detect=lambda request: [Verdict({}, False, unsupported=True) for _ in request.texts]).run(
        CLEAN
    )
    assert outcome.action is Action.PASSED
    assert outcome.degraded == ("unsupported_text",)


def test_a_vector_far_away_fails_the_meaning_check() -> None:
    def embed(request: Embed) -> Any:
        return np.eye(len(request.texts), dtype=np.float32)

    outcome = Hand(embed=embed).run(TOXIC)
    assert outcome.action is Action.MASKED
    assert "meaning" in outcome.edits[0].failed_checks


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 50), st.booleans())
def test_no_character_is_scored_more_than_k_times(lengths: list[int], size: int, suspicious: bool) -> None:
    policy = Policy(segment_min=4, segment_max=60, context=40, ladder=("mask", "block"))
    words = [f"<{i:x}>" + "x" * length for i, length in enumerate(lengths)]
    text = ". ".join(words)
    scored: list[str] = []

    def detect(request: Detect) -> list[Verdict]:
        scored.extend(request.texts)
        # Every text of two words is a suspect: each joint score is followed by one of its context.
        return [Verdict({}, suspicious and text.count("<") > 1) for text in request.texts]

    Hand(policy, detect=detect).run(*(text[i : i + size] for i in range(0, len(text), size)))
    in_reach = math.ceil(policy.context / policy.segment_min) + 1
    most = max(sum(f"<{i:x}>" in text for text in scored) for i in range(len(words)))
    assert most <= 2 + 2 * in_reach


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=25),
    st.integers(1, 50),
    st.integers(0, 3),
    st.sampled_from(["every text", "joint texts"]),
)
def test_candidates_and_masks_multiply_k_by_their_number(
    lengths: list[int], size: int, candidates: int, flagged: str
) -> None:
    """Each toxic segment is rewritten in vain: every candidate repeats it, and is scored as it was."""
    policy = Policy(segment_min=4, segment_max=60, context=40, candidates=max(candidates, 1))
    words = [f"<{i:x}>" + "x" * length for i, length in enumerate(lengths)]
    text = ". ".join(words)
    scored: list[str] = []

    def detect(request: Detect) -> list[Verdict]:
        scored.extend(request.texts)
        # A segment is clean alone and toxic after an odd number of others, or toxic in any case.
        toxic = [flagged == "every text" or text.count("<") % 2 == 0 for text in request.texts]
        return [Verdict({}, is_toxic, (Span(0, 1),) if is_toxic else ()) for is_toxic in toxic]

    def rewrite(request: Rewrite) -> list[list[str]]:
        return [[f"{text}{n}" for n in range(candidates)] for text in request.texts]

    def lexicon(request: Detect) -> list[Verdict]:
        return [Verdict({}, flagged=False) for _ in request.texts]

    hand = Hand(policy, detect=detect, rewrite=rewrite, lexicon=lexicon)
    hand.run(*(text[i : i + size] for i in range(0, len(text), size)))
    in_reach = math.ceil(policy.context / policy.segment_min) + 1
    most = max(sum(f"<{i:x}>" in text for text in scored) for i in range(len(words)))
    assert most <= 2 * (candidates + 2) * (in_reach + 1)


WORDS = st.sampled_from(
    [*BAD, "the", "cat.", "sat!", "on", "a\n", "mat?", "\n\n", "- x", "`code`", "Dr.", "e.g.", "3.14"]
)


@given(st.lists(WORDS, max_size=40), st.data())
def test_every_way_of_cutting_a_text_into_chunks_gives_the_same_outcome(
    words: list[str], data: st.DataObject
) -> None:
    text = " ".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    policy = Policy(segment_min=4, segment_max=60, max_rewrites=2)
    whole, cut = Hand(policy), Hand(policy)
    assert whole.run(text) == cut.run(*pieces)
    assert "".join(whole.released) == "".join(cut.released)


@given(st.text(max_size=200))
def test_text_without_toxic_words_is_returned_byte_for_byte(text: str) -> None:
    clean = WordDetector().judge(text)
    if not clean.flagged:
        assert Hand(Policy(segment_min=4, segment_max=60)).run(text).text == text
