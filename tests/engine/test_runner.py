"""What plug-ins may not do: raise, return the wrong length or type, or numbers that are none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from guardrail import Policy, Span, Verdict
from guardrail.engine.contract import Plugin
from guardrail.engine.runner import Models, Runner
from guardrail.engine.steps import Detect, Embed, ModelCall, Rewrite, Verify
from guardrail.errors import DeadlineError, ManifestError, PluginError
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.waiting import PATIENCE

SECRET = "canary-5f2c"
PLACES = {
    "detect": "detector",
    "lexicon": "lexicon",
    "rewrite": "rewriter",
    "embed": "embedder",
    "verify": "verifier",
}


def runner(*, policy: Policy | None = None, open_rewriter: Any = None, **models: Any) -> Runner:
    words = WordDetector()
    parts: dict[str, Any] = {
        "detect": words.detect,
        "lexicon": words.detect,
        "rewrite": WordRewriter().rewrite,
        "embed": BagEmbedder().embed,
        "verify": lambda sources, candidates: [1.0 for _ in candidates],
    }
    plugins = {name: Plugin(PLACES[name], part) for name, part in (parts | models).items()}
    return Runner(
        Models(**plugins, open_rewriter=open_rewriter),
        policy or Policy(detect_timeout=None, rewrite_timeout=None),
    )


def failure(call: ModelCall, **models: Any) -> PluginError:
    reply = runner(**models).ask(call)
    assert isinstance(reply, PluginError)
    assert SECRET not in str(reply)
    return reply


def good(score: float = 0.1, *spans: Span) -> Verdict:
    return Verdict({"toxicity": score}, False, spans)


@pytest.mark.parametrize(
    "reply",
    [
        [],
        [good(), good()],
        [None],
        [good(math.nan)],
        [good(1.5)],
        [good(0.1, Span(0, 99))],
        [good(0.1, Span(3, 3))],
    ],
    ids=["too few", "too many", "no verdict", "nan", "above one", "span outside", "empty span"],
)
def test_an_invalid_verdict_is_a_plugin_error(reply: Any) -> None:
    assert failure(Detect((SECRET,)), detect=lambda texts: reply).reason == "detector_invalid"


@pytest.mark.parametrize("reply", [[], [[1]], [["a"], ["b"]], None])
def test_invalid_candidates_are_a_plugin_error(reply: Any) -> None:
    assert failure(Rewrite((SECRET,), 2), rewrite=lambda s, n: reply).reason in {
        "rewriter_invalid",
        "rewriter_error",
    }


@pytest.mark.parametrize("reply", [np.zeros((2, 4)), np.zeros(4), np.full((1, 4), np.nan), "x"])
def test_invalid_embeddings_are_a_plugin_error(reply: Any) -> None:
    assert failure(Embed((SECRET,)), embed=lambda texts: reply).reason in {
        "embedder_invalid",
        "embedder_error",
    }


@pytest.mark.parametrize("reply", [[], [0.1, 0.2], [math.nan], [1.5], [-0.5], ["0.5"], [None], 0.5, None])
def test_invalid_probabilities_are_a_plugin_error(reply: Any) -> None:
    call = Verify((SECRET,), (f"{SECRET}, you fool",))
    assert failure(call, verify=lambda sources, candidates: reply).reason == "verifier_invalid"


def test_what_a_plugin_raises_is_kept_as_an_attribute_and_out_of_the_message() -> None:
    def detect(texts: Any) -> Any:
        raise ValueError(texts[0])

    error = failure(Detect((SECRET,)), detect=detect)
    assert error.reason == "detector_error"
    assert isinstance(error.original, ValueError)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_more_candidates_than_asked_for_are_cut() -> None:
    reply = runner(rewrite=lambda s, n: [["a", "b", "c"]]).ask(Rewrite(("x",), 2))
    assert reply == [["a", "b"]]


def test_a_broken_model_file_is_not_a_plugin_error() -> None:
    def detect(texts: Any) -> Any:
        raise ManifestError("altered")

    with pytest.raises(ManifestError):
        runner(detect=detect).ask(Detect(("x",)))


def test_only_the_word_list_has_no_deadline() -> None:
    given = runner()
    asked: tuple[ModelCall, ...] = (Detect(()), Rewrite((), 1), Embed(()), Verify((), ()))
    timed = [deadline.name for call in asked if (deadline := given.place(call).deadline) is not None]
    assert timed == ["detector", "rewriter", "embedder", "verifier"]
    assert given.place(Detect((), lexicon=True)).deadline is None


def test_a_rewriter_that_is_to_be_opened_is_opened_before_it_is_asked() -> None:
    opened: list[str] = []
    given = runner(
        rewrite=lambda segments, n: [opened[:] for _ in segments],
        open_rewriter=lambda: opened.append("loaded"),
    )
    assert not given.is_open
    assert given.ask(Rewrite(("x",), 2)) == [["loaded"]]
    assert given.is_open


def test_detection_and_rewriting_have_deadlines_of_their_own() -> None:
    import threading

    release = threading.Event()
    slow = runner(
        policy=Policy(detect_timeout=PATIENCE, rewrite_timeout=0.02),
        rewrite=lambda s, n: release.wait() and [],
    )
    late = slow.ask(Rewrite(("x",), 1))
    assert isinstance(late, DeadlineError)
    assert late.reason == "rewriter_deadline"
    assert len(slow.ask(Detect(("x",)))) == 1
    release.set()
