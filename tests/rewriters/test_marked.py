"""Candidates of a rewriter that knows the toxic characters, in both runtimes, and how it is asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail import Span
from guardrail.engine.ladder import candidates
from guardrail.engine.plugins import connect
from guardrail.engine.runner import Runner
from guardrail.engine.scoring import Case, Trace
from guardrail.engine.steps import Detect, Rewrite
from guardrail.errors import PluginError, UsageError
from guardrail.outcome import Verdict
from guardrail.policy import Policy
from guardrail.rewriters.edits import ranking
from guardrail.rewriters.edits.candidates import Ask, marked_candidates
from guardrail.rewriters.edits.propose import edits
from guardrail.rewriters.edits.ranking import ranked
from guardrail.rewriters.edits.substitutions import SubstitutionTable
from guardrail.rewriters.lora import LoraRewriter
from guardrail.rewriters.onnx import OnnxRewriter
from guardrail.rewriters.sampling import Decoding, Prompt
from guardrail.text.segment import Segment
from tests.fakes import BagEmbedder, WordDetector, WordRewriter

DECODING = Decoding(temperature=1.5, top_k=300, top_p=1.0, length_ratio=1.0, spare_tokens=40)
SEGMENTS = ["You are a fool, Tom.", "Stop it, you clown.", "What a stupid idea.", "Shut up", " "]
SPANS = [[Span(10, 14)], [Span(13, 18)], [Span(7, 13)], [], []]
SEED = 25
"""Of an adapter under which the tiny base ends its greedy rewrites of all these segments."""
RUNTIMES: dict[str, Callable[..., Any]] = {
    "torch": LoraRewriter.load,
    "onnx": partial(OnnxRewriter.load, threads=1),
}


@pytest.fixture(params=RUNTIMES)
def rewriter(
    request: pytest.FixtureRequest, tiny_base: Path, make_adapter: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    pytest.importorskip("torch")
    # A model of random weights finds everything unlikely.
    monkeypatch.setattr(ranking, "MIN_TOTAL", -math.inf)
    return RUNTIMES[request.param](make_adapter(seed=SEED), base_folder=tiny_base, decoding=DECODING)


def test_a_segment_alone_gets_what_it_gets_in_a_batch(rewriter: Any) -> None:
    together = rewriter.rewrite_marked(SEGMENTS, SPANS, 4)
    alone = [rewriter.rewrite_marked([s], [m], 4)[0] for s, m in zip(SEGMENTS, SPANS, strict=True)]
    assert together == alone
    assert together[-1] == []
    assert all(together[:-1])
    assert all(len(group) == len(set(group)) <= 4 for group in together)


def test_the_same_segment_with_other_spans_gets_candidates_of_its_own(rewriter: Any) -> None:
    text = "Stop it, you clown, or I will."
    spans = [[Span(13, 18)], [], [Span(0, 4)]]
    together = rewriter.rewrite_marked([text] * 3, spans, 40)
    assert together == [rewriter.rewrite_marked([text], [marks], 40)[0] for marks in spans]
    assert len(set(map(tuple, together))) == 3


def test_fewer_candidates_than_one_are_refused(rewriter: Any) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        rewriter.rewrite_marked(SEGMENTS, SPANS, 0)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nothing_is_sampled_so_the_temperature_changes_no_candidate(
    tiny_base: Path, make_adapter: Any, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(ranking, "MIN_TOTAL", -math.inf)
    adapter = make_adapter(seed=SEED)
    cool, hot = (
        RUNTIMES[runtime](adapter, base_folder=tiny_base, decoding=replace(DECODING, temperature=temperature))
        for temperature in (0.1, 1.5)
    )
    assert cool.rewrite(SEGMENTS, 6) != hot.rewrite(SEGMENTS, 6)
    assert cool.rewrite_marked(SEGMENTS, SPANS, 6) == hot.rewrite_marked(SEGMENTS, SPANS, 6)


def test_fewer_candidates_are_the_first_of_more(rewriter: Any) -> None:
    many = rewriter.rewrite_marked(SEGMENTS, SPANS, 6)
    assert rewriter.rewrite_marked(SEGMENTS, SPANS, 1) == [group[:1] for group in many]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_free_rewrite_that_is_cut_off_leaves_the_edits(
    tiny_base: Path, make_adapter: Any, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(ranking, "MIN_TOTAL", -math.inf)
    one_token = replace(DECODING, length_ratio=0.01, spare_tokens=0)
    rewriter = RUNTIMES[runtime](make_adapter(seed=SEED), base_folder=tiny_base, decoding=one_token)
    text, marks = SEGMENTS[1], SPANS[1]
    marked, plain = rewriter.rewrite_marked([text, text], [marks, []], 40)
    assert plain == []
    assert sorted(marked) == sorted(edits(text, marks, SubstitutionTable.shipped()))


class Characters:
    """A wording whose tokens are characters."""

    def prompts(self, texts: Sequence[str]) -> dict[str, Prompt]:
        return {text: Prompt(tuple(self.encode(text)), 100, text.encode()) for text in texts}

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))

    def texts(self, tokens: Sequence[Sequence[int]], *, source: str) -> list[str]:
        return ["".join(map(chr, ids)) for ids in tokens]


class Friendly:
    """A model that writes "Stop, friend" and finds all texts likely; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []

    def continued(self, asks: Sequence[Ask]) -> list[list[int]]:
        self.asked.extend(asks)
        return [Characters().encode("Stop, friend") for _ in asks]

    def scored(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> Any:
        return [[np.zeros(1, np.float32) for _ in each] for each in texts]


def proposed(
    segments: Sequence[tuple[str, tuple[Span, ...]]], *, n: int = 9, model: Friendly | None = None
) -> list[list[str]]:
    wording: Any = Characters()
    return marked_candidates(model or Friendly(), wording, SubstitutionTable({}), segments, n)


def test_without_spans_the_free_rewrite_is_all_that_is_proposed() -> None:
    text = "Stop it, you clown"
    marked, plain = proposed([(text, (Span(13, 18),)), (text, ())])
    assert {"Stop it", "Stop, friend"} <= set(marked)
    assert plain == ["Stop, friend"]
    assert [marked, plain] == [*proposed([(text, (Span(13, 18),))]), *proposed([(text, ())])]


@pytest.mark.parametrize("n", [1, 6])
def test_a_segment_is_written_anew_once_however_many_candidates_are_wanted(n: int) -> None:
    texts, model = ["Stop it, you clown", "Go, you fool"], Friendly()
    found = proposed([(texts[0], (Span(13, 18),)), (texts[1], (Span(8, 12),))], n=n, model=model)
    assert [ask.prompt for ask in model.asked] == list(Characters().prompts(texts).values())
    assert all(1 <= len(group) <= n for group in found)


# ---- the order


def scores(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def test_the_likeliest_as_a_whole_comes_first() -> None:
    found = {"free": scores(-1.0, -1.0), "edit": scores(-0.5, -0.2), "longer": scores(-0.9, -0.9, -0.9)}
    assert ranked(found, source="x", toxic=[], n=6) == ["edit", "free", "longer"]
    assert ranked(found, source="x", toxic=[], n=2) == ["edit", "free"]


@pytest.mark.parametrize("unlikely", [scores(-0.1, -0.1, -8.0, -0.1), scores(*[-0.6] * 10)])
def test_what_the_model_finds_unlikely_is_not_proposed(unlikely: Any) -> None:
    assert ranked({"unlikely": unlikely, "likely": scores(-1.0)}, source="x", toxic=[], n=6) == ["likely"]
    assert ranked({"unlikely": unlikely}, source="x", toxic=[], n=6) == []


def test_copies_are_left_out_and_what_is_still_toxic_comes_last() -> None:
    found = {"You Fool!": scores(-0.1), "no fool": scores(-0.2), "calm": scores(-2.0)}
    assert ranked(found, source="you fool", toxic=["Fool"], n=6) == ["calm", "no fool"]
    assert ranked(found, source="you fool", toxic=["Fool"], n=1) == ["calm"]


# ---- who is asked


class Marked(WordRewriter):
    """Answers with what it was told."""

    def __init__(self, reply: Any = None) -> None:
        super().__init__()
        self.reply = reply

    def rewrite_marked(
        self, segments: Sequence[str], spans: Sequence[Sequence[Span]], n: int
    ) -> list[list[str]]:
        if self.reply is not None:
            return self.reply  # type: ignore[no-any-return]
        return [
            [f"{s}|{[(m.start, m.end) for m in marks]}"] for s, marks in zip(segments, spans, strict=True)
        ]


def runner(rewriter: Any) -> Runner:
    words = WordDetector()
    models = connect(detector=words, rewriter=rewriter, embedder=BagEmbedder(), lexicon=words, verifier=None)
    return Runner(models, Policy(detect_timeout=None, rewrite_timeout=None))


def test_a_rewriter_that_takes_spans_gets_them_and_others_are_asked_as_before() -> None:
    call = Rewrite(("an idiot",), 2, ((Span(3, 8),),))
    assert runner(Marked()).ask(call) == [["an idiot|[(3, 8)]"]]
    assert runner(WordRewriter()).ask(call) == [["an idiot", "an person"]]
    assert runner(lambda segments, n: [["x"]]).ask(call) == [["x"]]
    assert runner(Marked()).ask(Rewrite(("an idiot",), 2)) == [["an idiot|[]"]]


def test_what_it_returns_is_checked_like_any_candidates() -> None:
    for reply in ("text", [["a"], ["b"]], [[1]], 3):
        error = runner(Marked(reply)).ask(Rewrite(("an idiot",), 2, ((Span(3, 8),),)))
        assert isinstance(error, PluginError)
        assert str(error).startswith("rewriter tests")
    assert runner(Marked((("a", "b", "c"),))).ask(Rewrite(("x",), 2, ((Span(0, 1),),))) == [["a", "b"]]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from(["none", "empty", "some"]), st.sampled_from("abc")),
        min_size=1,
        max_size=5,
    )
)
def test_a_calls_candidates_do_not_depend_on_whether_others_have_spans(
    described: list[tuple[int, str, str]],
) -> None:
    spans: dict[str, Callable[[int], tuple[tuple[Span, ...], ...]]] = {
        "none": lambda size: (),
        "empty": lambda size: ((),) * size,
        "some": some_spans,
    }
    pending = [Rewrite((text,) * size, 2, spans[kind](size)) for size, kind, text in described]
    for rewriter in (Marked(), WordRewriter()):
        alone = [runner(rewriter).ask(call) for call in pending]
        assert runner(rewriter).ask_together(pending) == alone


def some_spans(size: int) -> tuple[tuple[Span, ...], ...]:
    """The first text has a span, the others have none."""
    return ((Span(0, 1),), *((),) * (size - 1))


def test_a_text_without_spans_is_asked_for_like_one_beside_a_text_with_spans() -> None:
    texts = ("You stupid idiot, go.", "Nobody wants you here.")
    marked: list[tuple[Span, ...]] = [(Span(4, 16),), ()]

    def asked(places: Sequence[int]) -> Rewrite:
        cases = [
            Case(Segment(0, texts[i], Span(0, len(texts[i])), "prose"), "", Trace(len(texts[i])))
            for i in places
        ]
        for i, case in zip(places, cases, strict=True):
            case.verdict = Verdict({"toxicity": 0.9}, True, marked[i])
        steps = candidates(Policy(), cases, n=2)
        next(steps)
        call = steps.send([Verdict({"toxicity": 0.0}, False) for _ in places])
        assert isinstance(call, Rewrite)
        return call

    one = runner(Marked())
    assert one.ask(asked([0, 1])) == [*one.ask(asked([0])), *one.ask(asked([1]))]


def test_the_flow_hands_on_the_verdicts_spans_merged_with_those_of_the_word_list() -> None:
    text = "You stupid idiot, go."
    case = Case(Segment(0, text, Span(0, len(text)), "prose"), "", Trace(len(text)))
    case.verdict = Verdict({"toxicity": 0.9}, True, (Span(4, 12),))
    steps = candidates(Policy(), [case], n=3)
    assert next(steps) == Detect((text,), lexicon=True)
    asked = steps.send([Verdict({"toxicity": 0.9}, True, (Span(11, 16), Span(18, 20)))])
    assert asked == Rewrite((text,), 3, ((Span(4, 16), Span(18, 20)),))
    with pytest.raises(StopIteration) as ended:
        steps.send([["Go."]])
    assert ended.value.value == [["Go."]]
