"""Guard: what it accepts, what it refuses, and what it does with plug-ins."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardrail import Action, Guard, Outcome, Policy, Verdict
from guardrail.errors import BlockedError, ConfigError, PluginError, UsageError
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.linear import takes_linear_time
from tests.waiting import PATIENCE

TOXIC = "The driver of that bus is an idiot."
CLEAN = "The weather in the valley is fine today."
FAKES: dict[str, Any] = {
    "detector": WordDetector(),
    "rewriter": WordRewriter(),
    "embedder": BagEmbedder(),
    "lexicon": WordDetector(),
}


def guard(policy: Policy | None = None, **parts: Any) -> Guard:
    return Guard(policy=policy, **FAKES | parts)


def test_plain_functions_will_do_for_every_plugin() -> None:
    plain = guard(
        detector=WordDetector().detect,
        rewriter=lambda segments, n: WordRewriter().rewrite(segments, n),
        embedder=lambda texts: BagEmbedder().embed(texts),
        lexicon=WordDetector().detect,
    )
    assert plain.check(TOXIC).text == guard().check(TOXIC).text == TOXIC.replace("idiot", "person")


@pytest.mark.parametrize("text", [None, 3, b"bytes", ["list"]])
def test_anything_but_a_str_is_a_type_error_that_names_the_type(text: Any) -> None:
    with pytest.raises(TypeError, match=type(text).__name__):
        guard().check(text)
    with pytest.raises(TypeError, match=type(text).__name__):
        asyncio.run(guard().acheck(text))
    with pytest.raises(TypeError, match=type(text).__name__):
        guard().check_many([CLEAN, text])


def test_one_str_in_place_of_many_is_a_type_error() -> None:
    for method in (guard().check_many, guard().detect, guard().embed):
        with pytest.raises(TypeError, match="put it in a list"):
            method("text")


def test_no_texts_give_no_results() -> None:
    assert guard().check_many([]) == []
    assert guard().detect([]) == []
    assert guard().embed([]).shape == (0, 64)


def test_detect_decides_by_the_policy() -> None:
    (strict,) = guard(Policy(threshold=0.005)).detect([CLEAN])
    (default,) = guard().detect([CLEAN])
    (loose,) = guard(Policy(threshold=0.95)).detect([TOXIC])
    assert (strict.flagged, default.flagged, loose.flagged) == (True, False, False)


def test_a_threshold_of_one_label_adds_to_the_detectors_decision() -> None:
    def detect(texts: Any) -> list[Verdict]:
        return [Verdict({"toxicity": 0.2, "threat": 0.3}, False) for _ in texts]

    assert guard(Policy(thresholds={"threat": 0.25}), detector=detect).detect([CLEAN])[0].flagged
    assert not guard(Policy(thresholds={"threat": 0.35}), detector=detect).detect([CLEAN])[0].flagged


def test_embeddings_are_rows_of_unit_length() -> None:
    vectors = guard().embed([TOXIC, CLEAN])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("rewrite", "refused_by"),
    [
        ("You are a person.", ()),
        ("You are a moron.", ("toxic", "lexicon")),
        ("You are not a person.", ("stand_in",)),
        ("You are an idiot!", ("toxic", "lexicon", "copy")),
    ],
)
def test_a_rewrite_by_whomever_is_verified_by_the_checks_of_a_candidate(
    rewrite: str, refused_by: tuple[str, ...]
) -> None:
    heard: list[Outcome] = []
    assert guard(on_outcome=heard.append).verify("You are an idiot.", rewrite) == refused_by
    assert heard == []


def test_what_cannot_be_verified_is_an_error_without_its_text() -> None:
    with pytest.raises(PluginError) as caught:
        guard(detector=lambda texts: []).verify("You are an idiot.", "canary")
    assert "canary" not in str(caught.value)
    with pytest.raises(TypeError):
        guard().verify("You are an idiot.", 3)  # type: ignore[arg-type]


def test_a_detector_that_embeds_is_the_embedder() -> None:
    class Both(WordDetector, BagEmbedder):
        pass

    assert Guard(detector=Both(), lexicon=WordDetector()).embed([CLEAN]).shape == (1, 64)


def test_without_a_rewriter_by_choice_nothing_is_degraded() -> None:
    outcome = guard(rewriter=None).check(TOXIC)
    assert outcome.action is Action.MASKED
    assert outcome.degraded == ()


def test_a_missing_rewriter_masks_and_says_so() -> None:
    def rewrite(segments: Any, n: int) -> Any:
        raise PluginError("no base", reason="rewriter_missing")

    outcome = guard(rewriter=rewrite).check(TOXIC)
    assert outcome.text == TOXIC.replace("idiot", "i****")
    assert outcome.degraded == ("rewriter_missing",)


def test_raise_carries_the_outcome_and_no_text() -> None:
    with pytest.raises(BlockedError) as caught:
        guard(Policy(ladder=("block",), block="raise")).check(f"{CLEAN} {TOXIC}")
    assert caught.value.outcome.text == CLEAN
    assert "valley" not in str(caught.value)


def test_check_many_never_raises_for_a_blocked_text() -> None:
    outcomes = guard(Policy(ladder=("block",), block="raise")).check_many([TOXIC, CLEAN])
    assert [outcome.action for outcome in outcomes] == [Action.BLOCKED, Action.PASSED]


def test_the_hook_hears_every_outcome() -> None:
    heard: list[Outcome] = []
    listening = guard(on_outcome=heard.append)
    listening.check(TOXIC)
    listening.check_many([CLEAN, TOXIC])
    asyncio.run(listening.acheck(CLEAN))
    assert [outcome.action.value for outcome in heard] == ["rewritten", "passed", "rewritten", "passed"]


def test_a_detector_that_hangs_is_blocked_in_time() -> None:
    release = threading.Event()
    hanging = guard(Policy(detect_timeout=0.05), detector=lambda texts: release.wait(PATIENCE))
    outcome = hanging.check(CLEAN)
    assert outcome.action is Action.BLOCKED
    assert outcome.degraded == ("detector_deadline",)
    release.set()


@pytest.mark.parametrize("reply", [[], [Verdict({"toxicity": float("nan")}, False)]])
def test_a_detector_that_returns_nonsense_blocks(reply: Any) -> None:
    outcome = guard(detector=lambda texts: reply).check(CLEAN)
    assert outcome.action is Action.BLOCKED
    assert outcome.degraded == ("detector_invalid",)


def test_a_plugin_of_no_shape_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="detect"):
        guard(detector=object())


def test_a_rewriter_that_takes_no_adapter_says_so() -> None:
    with pytest.raises(UsageError, match="WordRewriter"):
        guard().with_adapter("somewhere")


def test_lone_surrogates_and_nul_come_back_as_they_were() -> None:
    text = "\ud800 and \x00 and \udfff stand in this clean text."
    assert guard().check(text).text == text


def test_a_megabyte_of_toxic_sentences_is_bounded_by_the_budget() -> None:
    rewriter = WordRewriter()
    text = f"{TOXIC} " * (1_000_000 // len(TOXIC))
    outcome = guard(rewriter=rewriter).check(text)
    assert sum(map(len, rewriter.calls)) == Policy().max_rewrites
    assert "idiot" not in outcome.text
    assert outcome.degraded == ("rewrite_budget",)
    for edit in outcome.edits[:: len(outcome.edits) // 50]:
        assert text[edit.start : edit.end] == edit.before


def test_time_for_a_long_toxic_text_stays_in_proportion_to_it() -> None:
    inline = guard(Policy(detect_timeout=None, rewrite_timeout=None))
    assert takes_linear_time(
        lambda size: partial(inline.check, f"{TOXIC} " * (size // len(TOXIC))), size=30_000
    )


def test_memory_for_a_long_toxic_text_stays_in_proportion_to_it() -> None:
    text = f"{TOXIC} " * (100_000 // len(TOXIC))
    plain = guard(
        detector=lambda texts: WordDetector().detect(texts),
        lexicon=lambda texts: WordDetector().detect(texts),
    )
    tracemalloc.start()
    try:
        plain.check(text)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 100 * len(text)  # bytes a character; edits and their verdicts take about 50


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 1.5},
        {"thresholds": {"insult": -1}},
        {"ladder": ("mask",)},
        {"ladder": ()},
        {"on_error": "ignore"},
        {"block": "never"},
        {"rewrite_timeout": 0},
        {"detect_timeout": float("inf")},
        {"threshold": "0.5"},
        {"thresholds": {"insult": "high"}},
        {"candidates": 2.5},
        {"meaning_floor": None},
        {"batch": 0},
        {"segment_min": 300},
        {"length_ratio": (2.0, 3.0)},
        {"meaning_floor": 2},
    ],
)
def test_a_wrong_policy_value_is_an_error_that_names_it(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match="insult" if name == "thresholds" else name):
        Policy(**wrong)


def test_policies_with_equal_settings_have_equal_digests() -> None:
    assert Policy().digest() == Policy().digest() != Policy(threshold=0.4).digest()


class Unheard:
    """An audit that keeps nothing."""

    def record(self, interventions: Any, /) -> None:
        """Forgets them."""


def test_guards_are_shared_between_threads() -> None:
    shared = guard()
    results: list[str] = []
    threads = [threading.Thread(target=lambda: results.append(shared.check(TOXIC).text)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {TOXIC.replace("idiot", "person")}
    assert len(results) == 16


@pytest.mark.parametrize("parts", [{}, {"audit": Unheard()}], ids=["plain", "audited"])
def test_a_guard_is_gone_with_its_last_owner(parts: dict[str, Any]) -> None:
    owned = guard(**parts)
    owned.check(TOXIC)
    seen = weakref.ref(owned)
    gc.disable()
    try:
        del owned
        assert seen() is None, "its threads would stay until the garbage collector comes"
    finally:
        gc.enable()


def test_another_policy_decides_with_the_same_models() -> None:
    heard: list[Outcome] = []
    shared = guard(on_outcome=heard.append)
    masking = shared.with_policy(Policy(ladder=("mask", "block")))
    assert [g.check(TOXIC).action for g in (shared, masking)] == [Action.REWRITTEN, Action.MASKED]
    assert len(heard) == 2


def test_a_shipped_model_is_loaded_once_however_many_threads_ask_for_it() -> None:
    from guardrail.engine.plugins import Once

    loads: list[object] = []
    both = threading.Barrier(8, timeout=PATIENCE)

    def load() -> object:
        loads.append(object())
        time.sleep(0.005)
        return loads[-1]

    once = Once(load)
    found: list[object] = []

    def ask() -> None:
        both.wait()
        found.append(once())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert found == loads * 8


def test_models_can_be_loaded_before_the_first_text() -> None:
    detector, heard = WordDetector(), list[Outcome]()
    assert guard(detector=detector, on_outcome=heard.append).load() == ()
    assert (len(detector.calls), heard) == (1, [])


def test_loading_says_what_will_not_work() -> None:
    def broken(texts: Any) -> Any:
        raise RuntimeError

    assert guard(detector=broken, lexicon=broken).load() == ("detector_error", "lexicon_error")


@pytest.mark.parametrize(
    ("early_stop", "first", "asked"),
    [
        (None, "person", [4]),
        (0.2, "person", [1]),
        (1.0, "person", [1, 4]),  # clean, and not close enough
        (0.2, "idiot", [1, 4]),  # still toxic
    ],
)
def test_further_candidates_are_drawn_unless_the_first_is_worth_the_early_stop(
    early_stop: float | None, first: str, asked: list[int]
) -> None:
    counts: list[int] = []

    def rewrite(segments: Any, n: int) -> list[list[str]]:
        counts.append(n)
        return [[s.replace("idiot", first), s.replace("idiot", "person")][:n] for s in segments]

    outcome = guard(Policy(candidates=4, early_stop=early_stop), rewriter=rewrite).check(TOXIC)
    assert outcome.text == TOXIC.replace("idiot", "person")
    assert counts == asked


def test_an_adapter_for_a_guard_without_a_rewriter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no rewriter \(rewriter=None\) .* Guard\(rewriter='shipped'\)"):
        guard(rewriter=None).with_adapter(tmp_path)


@pytest.mark.parametrize("block", ["segment", "whole", "raise"])
def test_a_str_is_moderated_as_it_is_checked(block: Any) -> None:
    policy = Policy(block=block, ladder=("block",))
    told: list[Outcome] = []
    shared = guard(policy=policy, on_outcome=told.append)
    if block == "raise":
        for way in (shared.moderate, lambda text: asyncio.run(shared.amoderate(text))):
            with pytest.raises(BlockedError):
                way(TOXIC)
    else:
        expected = guard(policy=policy).check(TOXIC).text
        assert shared.moderate(TOXIC) == asyncio.run(shared.amoderate(TOXIC)) == expected
    clean = "What a lovely day it is today."
    assert shared.moderate(clean) is clean
    assert asyncio.run(shared.amoderate(clean)) is clean
    assert [outcome.action.value for outcome in told] == ["blocked", "blocked", "passed", "passed"]
