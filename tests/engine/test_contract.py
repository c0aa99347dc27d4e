"""What plug-ins return is checked and coerced in one module, whichever way a text came in."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import Action, Guard, Outcome, Policy, Span, Verdict, detox_guard
from guardrail.engine.contract import Plugin, joined
from guardrail.errors import ConfigError, DeadlineError, PluginError, UsageError
from guardrail.outcome import Failure
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.returned import PLACES, SAME_VECTORS, WRONG_VECTORS, disguised, same, wrong
from tests.waiting import PATIENCE

CLEAN = "The weather in the valley is fine today."
TOXIC = "The driver of that bus is an idiot."
TEXT = f"{CLEAN} {TOXIC}"
REWRITTEN = TEXT.replace("idiot", "person")
INLINE: dict[str, Any] = {"detect_timeout": None, "rewrite_timeout": None}
THRESHOLDS: list[dict[str, Any]] = [{}, {"threshold": 0.5}, {"thresholds": {"toxicity": 0.5}}]
METHODS: dict[str, Callable[..., Any]] = {
    "detector": WordDetector().detect,
    "lexicon": WordDetector().detect,
    "rewriter": WordRewriter().rewrite,
    "embedder": BagEmbedder().embed,
}


def guard(policy: Policy | None = None, **parts: Any) -> Guard:
    return Guard(policy=policy or Policy(**INLINE), **METHODS | parts)


def chunks(text: str) -> Iterator[str]:
    for start in range(0, len(text), 7):
        yield text[start : start + 7]


async def achunks(text: str) -> AsyncIterator[str]:
    for chunk in chunks(text):
        yield chunk


async def joined_stream(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


async def coroutine(text: str) -> str:
    return text


WAYS: dict[str, Callable[[Guard, str], str]] = {
    "check": lambda guard, text: guard.check(text).text,
    "acheck": lambda guard, text: asyncio.run(guard.acheck(text)).text,
    "check_many": lambda guard, text: guard.check_many([CLEAN, text])[1].text,
    "stream": lambda guard, text: "".join(guard.stream(chunks(text))),
    "astream": lambda guard, text: asyncio.run(joined_stream(guard.astream(achunks(text)))),
    "wrap": lambda guard, text: guard.wrap(lambda: text)(),
    "wrapped generator": lambda guard, text: "".join(guard.wrap(chunks)(text)),
    "decorator": lambda guard, text: asyncio.run(detox_guard(guard=guard)(coroutine)(text)),
    "moderate": lambda guard, text: guard.moderate([text])[0],
    "amoderate": lambda guard, text: asyncio.run(guard.amoderate((text,)))[0],
}
places, ways, policies = map(st.sampled_from, (PLACES, sorted(WAYS), THRESHOLDS))


@pytest.mark.slow
@settings(max_examples=400)
@given(place=places, way=ways, thresholds=policies, data=st.data())
def test_what_means_the_same_is_read_the_same_every_way_in(
    place: str, way: str, thresholds: dict[str, Any], data: st.DataObject
) -> None:
    plugin = disguised(METHODS[place], data.draw(same(place)))
    heard: list[Outcome] = []
    given = guard(Policy(**INLINE, **thresholds), on_outcome=heard.append, **{place: plugin})
    assert WAYS[way](given, TEXT) == REWRITTEN
    assert [outcome.failures for outcome in heard if outcome.changed] == [()]
    assert not any(outcome.degraded for outcome in heard)


@pytest.mark.slow
@settings(max_examples=400)
@given(place=places, way=ways, thresholds=policies, data=st.data())
def test_what_breaks_the_contract_fails_closed_and_is_told_of_every_way_in(
    place: str, way: str, thresholds: dict[str, Any], data: st.DataObject
) -> None:
    plugin = disguised(METHODS[place], data.draw(wrong(place)))
    heard: list[Outcome] = []
    given = guard(Policy(**INLINE, **thresholds), on_outcome=heard.append, **{place: plugin})
    shown = WAYS[way](given, TEXT)
    assert "idiot" not in shown
    assert "canary" not in shown
    assert shown.startswith(given.policy.refusal if place == "detector" else CLEAN)
    outcome = next(outcome for outcome in reversed(heard) if outcome.text == shown)
    assert {failure.place for failure in outcome.failures} == {place}
    assert all(reason.startswith(place) for reason in outcome.degraded)
    assert outcome.degraded


@settings(max_examples=200)
@given(place=places, way=ways, data=st.data())
def test_who_wants_to_see_failures_sees_them_every_way_in(place: str, way: str, data: st.DataObject) -> None:
    plugin = disguised(METHODS[place], data.draw(wrong(place)))
    with pytest.raises(PluginError, match=f"^{place} tests") as caught:
        WAYS[way](guard(Policy(**INLINE, on_error="raise"), **{place: plugin}), TEXT)
    assert "canary" not in str(caught.value)
    assert caught.value.failure is not None
    assert caught.value.failure.place == place


@settings(max_examples=200)
@given(thresholds=policies, data=st.data())
def test_detect_gives_pythons_own_numbers_and_the_policys_decision(
    thresholds: dict[str, Any], data: st.DataObject
) -> None:
    plugin = disguised(METHODS["detector"], data.draw(same("detector")))
    clean, toxic = guard(Policy(**INLINE, **thresholds), detector=plugin).detect([CLEAN, TOXIC])
    assert (clean.flagged, toxic.flagged) == (False, True)
    assert toxic.spans == (Span(29, 34),)
    assert type(toxic.spans[0].start) is type(toxic.spans[0].end) is int
    assert {type(score) for score in toxic.scores.values()} == {float}
    assert {type(label) for label in toxic.scores} == {str}


@pytest.mark.parametrize("disguise", SAME_VECTORS)
def test_embed_gives_rows_of_unit_length(disguise: Callable[[Any], Any]) -> None:
    plugin = disguised(METHODS["embedder"], disguise)
    vectors = guard(embedder=plugin).embed([CLEAN, TOXIC])
    assert (vectors.dtype, vectors.shape) == (np.float32, (2, 64))
    assert np.allclose(vectors, BagEmbedder().embed([CLEAN, TOXIC]), atol=0.01)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@settings(max_examples=200)
@given(place=st.sampled_from(("detector", "embedder")), data=st.data())
def test_direct_calls_raise_for_what_breaks_the_contract(place: str, data: st.DataObject) -> None:
    plugin = disguised(METHODS[place], data.draw(wrong(place)))
    given = guard(**{place: plugin})
    with pytest.raises(PluginError, match=f"^{place} tests") as caught:
        (given.detect if place == "detector" else given.embed)([CLEAN, TOXIC])
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("kind", [np.bool_, int, np.int64, np.array, float])
@pytest.mark.parametrize("policy", [{}, {"threshold": 0.5}, {"threshold": 0.95}])
def test_a_flag_of_another_type_is_never_inverted(kind: Any, policy: dict[str, Any]) -> None:
    def detect(texts: Sequence[str]) -> list[Verdict]:
        honest = WordDetector().detect(texts)
        return [Verdict(v.scores, kind(v.flagged), v.spans) for v in honest]

    toxic = policy.get("threshold", 0.5) <= 0.9
    outcome = guard(Policy(**INLINE, **policy), detector=detect).check(TEXT)
    assert outcome.text == (REWRITTEN if toxic else TEXT)
    assert outcome.verdict.flagged is toxic


def test_a_verdict_without_scores_is_decided_by_the_detector_under_any_threshold() -> None:
    def detect(texts: Sequence[str]) -> list[Verdict]:
        return [Verdict({}, "idiot" in text) for text in texts]

    assert guard(Policy(**INLINE, threshold=0.5), detector=detect).check(TOXIC).action is not Action.PASSED


def test_a_score_that_rounding_put_beside_0_or_1_is_0_or_1() -> None:
    def detect(texts: Sequence[str]) -> list[Verdict]:
        return [Verdict({"toxicity": np.nextafter(np.float32(1), 2), "insult": -1e-7}, True) for _ in texts]

    assert guard(detector=detect).detect(["x"])[0].scores == {"toxicity": 1.0, "insult": 0.0}


def test_a_verdict_of_a_subclass_is_read_as_a_verdict() -> None:
    class Lying(Verdict):
        def __post_init__(self) -> None:
            """Leaves everything as it is."""

    made: Any = Lying
    lying = made({"toxicity": np.float32(0.9)}, 0, [(0, 3)], 1)
    (verdict,) = guard(detector=lambda texts: [lying]).detect(["bad"])
    assert type(verdict) is Verdict
    assert verdict.flagged is False
    assert verdict.spans == (Span(0, 3),)
    assert verdict.unsupported is True


SAID: list[tuple[str, Any, str]] = [
    ("detector", None, "a NoneType in place of a list of verdicts"),
    ("detector", "x", "a str in place of a list of verdicts"),
    ("detector", {}, "a dict in place of a list of verdicts"),
    ("detector", [], "0 verdicts for 2 texts"),
    ("detector", [1, 2, 3, 4], "more than 2 verdicts for 2 texts"),
    ("detector", [Verdict({}, flagged=False), 0.9], "a float in place of a Verdict"),
    ("detector", 2 * [Verdict({"x": 1.5}, flagged=False)], "score 1.5 for 'x', outside 0..1"),
    ("detector", 2 * [Verdict({}, True, (Span(0, 99),))], "a span outside its text of 3 characters"),
    ("rewriter", None, "a NoneType in place of a list of lists of candidates"),
    ("rewriter", [[]], "1 lists of candidates for 2 segments"),
    ("rewriter", ["a", "b"], "a str in place of a list of candidates"),
    ("rewriter", [["a"], [None]], "a NoneType in place of a candidate, which is a str"),
    ("embedder", None, "a NoneType in place of a list of vectors"),
    ("embedder", [[1.0]], "1 vectors for 2 texts"),
    ("embedder", [[1.0], [1.0, 2.0]], "something that is not an array of numbers"),
    ("embedder", [["a"], ["b"]], "an array of <U1, not of numbers"),
    ("embedder", np.ones(2), r"shape (2,) for 2 texts, expected (2, d)"),
    ("embedder", [[1.0], [np.inf]], "a value that is not finite"),
    ("embedder", [[1.0], [0.0]], "a vector of zeros, which has no direction"),
]


@pytest.mark.parametrize(("place", "reply", "said"), SAID, ids=[said for _, _, said in SAID])
def test_an_error_says_what_was_returned(place: str, reply: Any, said: str) -> None:
    def given(texts: Sequence[str], *rest: int) -> Any:
        return reply

    plugin = Plugin(place, given)
    check = {
        "detector": lambda reply: plugin.verdicts(reply, ["one", "two"]),
        "rewriter": lambda reply: plugin.candidates(reply, 2, 2),
        "embedder": lambda reply: plugin.vectors(reply, 2),
    }
    with pytest.raises(PluginError) as caught:
        check[place](reply)
    assert str(caught.value) == f"{place} {__name__}.{given.__qualname__} returned {said}"
    assert caught.value.reason == f"{place}_invalid"
    assert caught.value.failure == plugin.failure("PluginError")


def test_an_async_plugin_is_told_that_plugins_are_plain() -> None:
    async def detect(texts: Sequence[str]) -> list[Verdict]:
        return []

    with pytest.raises(PluginError, match="a coroutine in place of a list of verdicts; plug-ins are plain"):
        guard(detector=detect).detect([CLEAN])


@pytest.mark.parametrize("disguise", WRONG_VECTORS)
def test_what_is_no_vector_is_refused(disguise: Callable[[Any], Any]) -> None:
    with pytest.raises(PluginError, match=r"^embedder tests"):
        guard(embedder=disguised(METHODS["embedder"], disguise)).embed([CLEAN, TOXIC])


def test_candidates_for_several_segments_in_one_flat_list_are_refused() -> None:
    outcome = guard(rewriter=lambda segments, n: ["Two people." for _ in segments]).check(TOXIC)
    assert outcome.text == TOXIC.replace("idiot", "i****")
    (failure,) = outcome.failures
    assert (failure.place, failure.error) == ("rewriter", "PluginError")


def test_the_meaning_floor_does_not_depend_on_the_length_of_vectors() -> None:
    for factor in (0.3, 1.0, 3.0):
        outcome = guard(embedder=lambda texts, f=factor: f * BagEmbedder().embed(texts)).check(TOXIC)
        (edit,) = outcome.edits
        assert edit.similarity == pytest.approx(guard().check(TOXIC).edits[0].similarity, abs=1e-6)
    unlike = guard(embedder=lambda texts: 3 * np.eye(len(texts))).check(TOXIC)
    assert unlike.action is Action.MASKED
    assert "meaning" in unlike.edits[0].failed_checks


def test_vectors_of_calls_that_differ_in_length_are_the_embedders_failure() -> None:
    plugin = Plugin("embedder", METHODS["embedder"])
    with pytest.raises(PluginError, match="2 numbers in one call and of 3 in another"):
        joined([np.ones((1, 2), np.float32), np.ones((1, 3), np.float32)], by=plugin)


def test_a_broken_word_list_is_not_blamed_on_the_detector() -> None:
    outcome = guard(Policy(**INLINE, on_error="lexicon"), detector=failing, lexicon=lambda t: None).check(
        TOXIC
    )
    assert outcome.degraded == ("lexicon_invalid",)
    assert [failure.place for failure in outcome.failures] == ["detector", "lexicon"]


def failing(texts: Sequence[str], *rest: int) -> Any:
    raise NameError(texts[0])


LINE = failing.__code__.co_firstlineno
HERE = Failure("detector", f"{__name__}.failing", "NameError", __name__, LINE + 1)


def test_an_outcome_says_which_plugin_failed_where() -> None:
    assert guard(detector=failing).check(TEXT).failures == (HERE,)


def test_the_authors_own_line_counts_and_not_one_of_a_library_that_it_calls() -> None:
    def detect(texts: Sequence[str]) -> Any:
        return np.stack([])

    (failure,) = guard(detector=detect).check(TEXT).failures
    assert (failure.module, failure.line) == (__name__, detect.__code__.co_firstlineno + 1)


def test_a_plugin_that_cannot_take_its_arguments_is_named_by_where_it_is_defined() -> None:
    def detect() -> Any:
        raise AssertionError

    (failure,) = guard(detector=detect).check(TEXT).failures
    assert (failure.error, failure.line) == ("TypeError", detect.__code__.co_firstlineno)


def test_an_object_is_named_by_its_type() -> None:
    class Broken:
        def detect(self, texts: Sequence[str]) -> Any:
            return None

    (failure,) = guard(detector=Broken()).check(TEXT).failures
    assert failure.plugin == f"{__name__}.{Broken.__qualname__}"
    assert failure.line == Broken.detect.__code__.co_firstlineno


def test_an_object_that_can_be_called_is_named_by_its_type() -> None:
    class Called:
        def __call__(self, texts: Sequence[str]) -> Any:
            return None

    (failure,) = guard(detector=Called()).check(TEXT).failures
    assert failure.plugin == f"{__name__}.{Called.__qualname__}"
    assert failure.line == Called.__call__.__code__.co_firstlineno


def test_a_late_plugin_is_a_failure_too() -> None:
    import threading

    release = threading.Event()
    late = guard(Policy(detect_timeout=0.02), detector=lambda texts: release.wait(PATIENCE))
    (failure,) = late.check(CLEAN).failures
    assert (failure.place, failure.error) == ("detector", DeadlineError.__name__)
    release.set()


def test_a_generator_that_never_yields_is_late_and_does_not_hang() -> None:
    import threading

    release = threading.Event()

    def detect(texts: Sequence[str]) -> Iterator[Verdict]:
        release.wait(PATIENCE)
        yield Verdict({}, flagged=False)

    assert guard(Policy(detect_timeout=0.02), detector=detect).check(CLEAN).degraded == ("detector_deadline",)
    release.set()


def test_a_failing_plugin_is_warned_of_once_and_without_the_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="guardrail"):
        broken = guard(detector=failing, lexicon=failing)
        for _ in range(3):
            broken.check(TEXT)
            asyncio.run(broken.acheck(TEXT))
            broken.with_policy(Policy(on_error="lexicon")).check(TEXT)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [re.sub(" raised.*", "", warning) for warning in warnings] == [
        f"detector {__name__}.failing",
        f"lexicon {__name__}.failing",
    ]
    assert all(f"NameError in {__name__}, line {LINE + 1}" in warning for warning in warnings)
    assert "valley" not in caplog.text


def test_raised_failures_chain_the_original_under_debug_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeing = guard(Policy(**INLINE, on_error="raise"), detector=failing)
    for way in WAYS.values():
        monkeypatch.delenv("GUARDRAIL_DEBUG", raising=False)
        with pytest.raises(PluginError) as hidden:
            way(seeing, TEXT)
        assert hidden.value.__cause__ is None
        monkeypatch.setenv("GUARDRAIL_DEBUG", "1")
        with pytest.raises(PluginError) as shown:
            way(seeing, TEXT)
        assert isinstance(shown.value.__cause__, NameError)
        assert "flow.py" in str(shown.traceback) > str(hidden.traceback)


def test_a_rewriter_that_is_missing_is_no_failure_that_is_raised() -> None:
    def rewrite(segments: Sequence[str], n: int) -> Any:
        raise PluginError("no base", reason="rewriter_missing")

    outcome = guard(Policy(**INLINE, on_error="raise"), rewriter=rewrite).check(TOXIC)
    assert (outcome.degraded, outcome.failures) == (("rewriter_missing",), ())


def test_what_a_plugin_says_in_an_error_of_this_package_is_not_passed_on() -> None:
    def detect(texts: Sequence[str]) -> Any:
        raise DeadlineError(texts[0], reason="detector_upstream")

    with pytest.raises(DeadlineError) as caught:
        guard(detector=detect).detect([TOXIC])
    assert "idiot" not in str(caught.value)
    assert caught.value.reason == "detector_upstream"


def test_what_ends_the_program_is_not_a_plugins_failure() -> None:
    def detect(texts: Sequence[str]) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guard(detector=detect).check(TEXT)


@pytest.mark.parametrize("way", WAYS)
def test_a_threshold_for_a_label_that_is_not_scored_is_an_error_that_names_those_that_are(way: str) -> None:
    given = guard(Policy(**INLINE, thresholds={"toxcity": 0.5}))
    with pytest.raises(ConfigError, match=r"'toxcity'.*WordDetector does not score.* labels are toxicity"):
        WAYS[way](given, TEXT)


class Sparse:
    """Leaves labels out that it does not find."""

    labels = ("insult", "threat")

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        return [Verdict({"insult": 0.9} if "idiot" in text else {}, "idiot" in text) for text in texts]


def test_labels_that_a_detector_declares_are_known_before_the_first_text() -> None:
    with pytest.raises(ConfigError, match="labels are insult, threat"):
        guard(Policy(thresholds={"toxicity": 0.5}), detector=Sparse())
    with pytest.raises(ConfigError, match="labels are insult, threat"):
        guard(detector=Sparse()).with_policy(Policy(thresholds={"toxicity": 0.5}))
    assert guard(Policy(**INLINE, thresholds={"threat": 0.5}), detector=Sparse()).check(TOXIC).changed


def test_the_shipped_detectors_labels_are_known_without_loading_it() -> None:
    with pytest.raises(ConfigError, match=r"'toxcity'.*identity_attack, incivility, insult"):
        Guard(policy=Policy(thresholds={"toxcity": 0.5}))
    assert Guard(policy=Policy(thresholds={"insult": 0.5})).policy.thresholds == {"insult": 0.5}


def test_a_class_in_place_of_an_object_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"detector is the class WordDetector.*WordDetector\(\.\.\.\)"):
        guard(detector=WordDetector)


def test_an_embedder_that_is_empty_is_an_embedder_all_the_same() -> None:
    class Empty(BagEmbedder):
        def __len__(self) -> int:
            return 0

    assert guard(embedder=Empty()).embed([CLEAN]).shape == (1, 64)


def test_no_texts_have_no_vectors_whatever_an_embedder_returns_for_none() -> None:
    assert guard(embedder=lambda texts: []).embed([]).shape == (0, 0)


def test_a_verdict_is_the_same_value_whatever_library_its_numbers_come_from() -> None:
    plain = Verdict({"toxicity": 0.5}, flagged=True, spans=(Span(0, 1),))
    as_people_do: Any = Verdict
    other = as_people_do({"toxicity": np.float64(0.5)}, np.True_, [(np.int64(0), np.int64(1))], np.False_)
    assert (other, hash(other)) == (plain, hash(plain))
    assert not math.isnan(other.score)


@pytest.mark.parametrize("pairs", [[[0, 1]], [[0, 1], [2, 3]], []])
def test_spans_may_be_an_array(pairs: list[list[int]]) -> None:
    as_people_do: Any = Verdict
    given = np.array(pairs).reshape(-1, 2).astype(int)
    assert as_people_do({}, True, given).spans == tuple(Span(*pair) for pair in pairs)


@pytest.mark.parametrize("change", ["pop", "clear", "update", "setdefault", "popitem"])
def test_scores_that_were_handed_out_cannot_be_changed(change: str) -> None:
    outcome = guard(Policy(**INLINE, ladder=("mask", "block"))).check(TOXIC)
    scores: Any = outcome.edits[0].verdict.scores
    with pytest.raises(TypeError, match="read-only"):
        getattr(scores, change)("toxicity", 0.0)
    with pytest.raises(TypeError, match="read-only"):
        scores["toxicity"] = 0.0
    with pytest.raises(TypeError, match="read-only"):
        del scores["toxicity"]
    with pytest.raises(TypeError, match="read-only"):
        scores |= {"toxicity": 0.0}
