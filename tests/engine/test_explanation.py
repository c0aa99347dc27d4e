"""What was tried for each sentence: complete where it is asked for, kept nowhere where it is not."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from guardrail import Action, Policy, Verdict
from guardrail.engine.scoring import Case
from guardrail.outcome.explanation import Attempt, Explanation
from tests.bus import CLEAN
from tests.fakes import WordDetector, WordGuard

TOXIC = "The bus is late today and its driver is an idiot."
NEUTRAL = TOXIC.replace("idiot", "person")
CANARY = "canaryword9462"
REFUSED = {
    "copy": TOXIC,
    "negation": NEUTRAL.replace("late", "not late"),
    "number": f"{NEUTRAL[:-1]} 5 times.",
    "length": NEUTRAL + " And that is what we say." * 4,
}


def proposing(*candidates: str) -> Callable[[Sequence[str], int], list[list[str]]]:
    """A rewriter that proposes these for every sentence."""
    return lambda texts, n: [list(candidates)[:n] for _ in texts]


def explained(text: str = TOXIC, policy: Policy | None = None, **parts: Any) -> Explanation:
    return WordGuard(policy=policy, **parts).explain(text)


def test_every_sentence_is_there_with_its_place_and_its_verdict() -> None:
    text = f"  {CLEAN} {TOXIC}\n\n- {CLEAN}"
    explanation = explained(text)
    assert [sentence.text for sentence in explanation.sentences] == [CLEAN, TOXIC, CLEAN]
    for sentence in explanation.sentences:
        assert text[sentence.start : sentence.end] == sentence.text
    passed, flagged, _ = explanation.sentences
    assert (passed.edit, passed.attempts, passed.verdict.flagged) == (None, (), False)
    assert flagged.edit == explanation.outcome.edits[0]
    assert flagged.verdict == flagged.edit.verdict


@pytest.mark.parametrize("name", REFUSED)
def test_each_candidate_is_kept_with_the_checks_that_refused_it(name: str) -> None:
    (sentence,) = explained(rewriter=proposing(REFUSED[name], NEUTRAL)).sentences
    refused, taken = sentence.attempts
    assert refused.text == REFUSED[name]
    assert name in refused.failed_checks
    assert (taken.text, taken.failed_checks) == (NEUTRAL, ())
    assert sentence.edit is not None
    assert sentence.edit.after == NEUTRAL
    assert taken.similarity == pytest.approx(sentence.edit.similarity)


def test_the_outcome_is_that_of_a_check() -> None:
    guard = WordGuard(rewriter=proposing(*REFUSED.values(), NEUTRAL))
    text = f"{CLEAN} {TOXIC} {CLEAN}"
    explained, checked = guard.explain(text).outcome, guard.check(text)
    assert (explained.text, explained.edits, explained.degraded) == (
        checked.text,
        checked.edits,
        checked.degraded,
    )


def test_a_mask_that_was_tried_is_there_with_what_refused_it() -> None:
    def wary(texts: Sequence[str]) -> list[Verdict]:
        """Holds the whole sentence for toxic whatever is masked, and one word responsible."""
        found = WordDetector().detect(texts)
        return [Verdict({"toxicity": 0.9}, "bus" in t, v.spans) for t, v in zip(texts, found, strict=True)]

    (sentence,) = explained(detector=wary, rewriter=None).sentences
    (mask,) = sentence.attempts
    assert (mask.step, mask.failed_checks) == ("mask", ("mask:toxic",))
    assert mask.text == TOXIC.replace("idiot", "i****")
    (sentence,) = explained(rewriter=None).sentences
    assert [(each.step, each.failed_checks) for each in sentence.attempts] == [("mask", ())]


def test_a_candidate_that_is_proposed_twice_is_told_once() -> None:
    policy = Policy(early_stop=1.0)
    (sentence,) = explained(policy=policy, rewriter=proposing(TOXIC, NEUTRAL)).sentences
    assert [attempt.text for attempt in sentence.attempts] == [TOXIC, NEUTRAL]


def test_nothing_after_a_blocked_sentence_is_told_and_nothing_is_raised() -> None:
    for block in ("segment", "raise"):
        explanation = explained(f"{TOXIC} {CLEAN}", Policy(ladder=("block",), block=block))
        assert explanation.outcome.action is Action.BLOCKED
        assert [sentence.text for sentence in explanation.sentences] == [TOXIC]


def test_an_explanation_in_words_names_each_candidate_and_why_it_was_refused() -> None:
    candidates = (REFUSED["negation"], REFUSED["number"], NEUTRAL, NEUTRAL.replace("The", "That"))
    shown = "\n".join(explained(f"{CLEAN} {TOXIC}", rewriter=proposing(*candidates)).lines())
    assert f"1. characters 0-{len(CLEAN)} (toxicity 0.01): passed\n   {CLEAN!r}" in shown
    assert f"(toxicity 0.90): rewritten\n   {TOXIC!r}" in shown
    assert "rewrite 1: refused: it lost or gained a 'not' (negation)" in shown
    assert "rewrite 2: refused: a number was lost, changed or added (number)" in shown
    assert "rewrite 3: taken [similarity 0.9" in shown
    assert "rewrite 4: passed, not taken" in shown
    for candidate in candidates:
        assert repr(candidate) in shown


def test_an_explanation_says_why_a_step_was_not_tried() -> None:
    shown = "\n".join(explained(policy=Policy(max_rewrites=0)).lines())
    assert "the text has more flagged sentences than may be rewritten (rewrite:budget)" in shown
    assert f"mask: taken\n     {TOXIC.replace('idiot', 'i****')!r}" in shown
    assert "no full pass: the text has more flagged sentences" in shown
    blocked = "\n".join(explained(policy=Policy(ladder=("block",), refusal="[no]")).lines())
    assert "blocked, with all that follows" in blocked
    assert "in its place: '[no]'" in blocked


def test_an_explanation_escapes_what_a_terminal_would_obey() -> None:
    odd = "The \x1b[2J driver \u202e of that bus is an idiot."
    shown = "\n".join(explained(odd, rewriter=proposing("The \x1b[2J driver is a person.")).lines())
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"\x1b[2J driver" in shown


# ---- nothing is kept unless it is asked for


def canary(texts: Sequence[str], n: int) -> list[list[str]]:
    """Proposals that no check lets pass, each with the canary."""
    return [[f"{CANARY} {number} is a person and a moron." for number in range(n)] for _ in texts]


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    with caplog.at_level(logging.DEBUG):
        yield lambda: caplog.text


def test_no_outcome_log_or_audit_holds_a_candidate(tmp_path: Path, logged: Callable[[], str]) -> None:
    pytest.importorskip("sqlalchemy")
    from guardrail.audit.store import AuditStore

    store = AuditStore(tmp_path / "audit.db", include_text=True)
    heard: list[Any] = []
    guard = WordGuard(rewriter=canary, audit=store, on_outcome=heard.append)
    explanation = guard.explain(TOXIC)
    assert any(CANARY in attempt.text for each in explanation.sentences for attempt in each.attempts)
    outcomes = [explanation.outcome, *heard, guard.check(TOXIC), *guard.check_many([TOXIC])]
    outcomes.append(asyncio.run(guard.acheck(TOXIC)))
    store.close()
    assert all(CANARY not in str(outcome.to_dict()) for outcome in outcomes)
    assert CANARY not in repr([explanation, explanation.sentences, explanation.sentences[0].attempts])
    assert CANARY not in logged()
    assert CANARY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert "action=masked" in logged()


def test_an_explanation_is_recorded_as_a_check_is(tmp_path: Path) -> None:
    recorded: list[Any] = []

    class Log:
        def record(self, interventions: Sequence[Any], /) -> None:
            recorded.extend(interventions)

    guard = WordGuard(audit=Log())
    guard.explain(TOXIC)
    guard.check(TOXIC)
    first, second = recorded
    assert (first.start, first.before, first.after) == (second.start, second.before, second.after)


def test_a_check_makes_no_note_of_what_it_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    kept = Case.settle

    def settle(self: Case, *arguments: Any, **more: Any) -> None:
        made.append(self.attempts)
        kept(self, *arguments, **more)

    monkeypatch.setattr(Case, "settle", settle)
    text = TOXIC.replace("bus", "keptword1177")
    WordGuard().check(text)
    assert made == [None]
    gc.collect()
    # isinstance would ask deprecated objects of other libraries for their class.
    assert not [each for each in gc.get_objects() if type(each) is Attempt and "keptword1177" in each.text]


def test_a_wrong_type_is_refused_without_showing_it() -> None:
    with pytest.raises(TypeError, match="expected str, got bytes") as caught:
        WordGuard().explain(CANARY.encode())  # type: ignore[arg-type]  # the mistake under test
    assert CANARY not in str(caught.value)
