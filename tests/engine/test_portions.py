"""Calls of bounded size: what is cut, what is put together again, and what one failure costs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail import Action, Guard, Policy, Span, Verdict
from guardrail.engine.deadline import Deadline
from guardrail.engine.portions import MAX_CHARACTERS, MAX_REWRITTEN, Piece, merged, pieces, portions
from guardrail.errors import PluginError
from guardrail.integrations.rows.job import Job
from guardrail.protocols import Embeddings
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.waiting import PATIENCE

CLEAN, TOXIC = "The weather in the valley is fine today.", "The driver of that bus is an idiot."


def guard(policy: Policy | None = None, **parts: object) -> Guard:
    words: dict[str, object] = {
        "detector": WordDetector(),
        "lexicon": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
    }
    return Guard(policy=policy, **words | parts)  # type: ignore[arg-type]


def sizes(calls: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    return [(len(call), sum(map(len, call))) for call in calls]


@given(st.lists(st.text("ab ", max_size=40), max_size=60), st.integers(1, 9), st.integers(1, 90))
def test_portions_hold_all_texts_in_order_within_their_bounds(
    texts: list[str], batch: int, size: int
) -> None:
    cut = list(portions(texts, batch=batch, characters=size))
    assert [text for portion in cut for text in portion] == texts
    for portion in cut:
        assert len(portion) <= batch
        assert len(portion) == 1 or sum(map(len, portion)) <= size


@pytest.mark.parametrize("unit", ["word ", "x", "你", "a\n", "\u0301"])
def test_pieces_cover_a_text_and_overlap(unit: str) -> None:
    text = (unit * 60_000)[:60_000]
    cut = pieces(text)
    end = 0
    for piece in cut:
        assert text[piece.start : piece.start + len(piece.text)] == piece.text
        assert len(piece.text) <= MAX_CHARACTERS
        assert piece.start <= max(0, end - 1)
        end = piece.start + len(piece.text)
    assert end == len(text)
    assert all(a.start < b.start for a, b in pairwise(cut))


def test_a_short_text_is_one_piece() -> None:
    assert pieces(CLEAN) == [Piece(0, CLEAN)]


def test_the_verdict_of_pieces_has_the_highest_scores_and_every_span_once() -> None:
    first = Piece(0, "x" * 100), Verdict({"toxicity": 0.2}, False, (Span(90, 95),), clear=False)
    second = Piece(80, "x" * 300), Verdict({"toxicity": 0.9}, True, (Span(10, 15), Span(200, 204)), True)
    both = merged([first, second])
    assert both.scores == {"toxicity": 0.9}
    assert both.flagged
    assert both.spans == (Span(90, 95), Span(280, 284))
    assert both.unsupported
    assert not both.clear


@pytest.mark.parametrize("place", [0, 8_150, 8_190, 100_000, 189_990])
def test_a_long_text_is_detected_in_small_calls_with_exact_spans(place: int) -> None:
    words = WordDetector()
    text = ("The bus is late. " * 12_000)[:190_000]
    place = text.index(" ", place) + 1
    text = f"{text[:place]}idiot {text[place:]}"
    (verdict,) = guard(detector=words).detect([text])
    assert [text[span.start : span.end] for span in verdict.spans] == ["idiot"]
    assert verdict.flagged
    assert all(size <= MAX_CHARACTERS for _, size in sizes(words.calls))


def test_a_long_text_is_embedded_in_small_calls() -> None:
    calls: list[Sequence[str]] = []

    def embed(texts: Sequence[str]) -> Embeddings:
        calls.append(texts)
        return BagEmbedder().embed(texts)

    rows = guard(embedder=embed).embed([CLEAN, "The bus is late. " * 9_000, TOXIC])
    assert rows.shape == (3, 64)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert all(size <= MAX_CHARACTERS for _, size in sizes(calls))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "length"), [(150, 40), (80, 400), (12, 3000)])
def test_every_way_of_asking_makes_small_calls(number: int, length: int) -> None:
    words, rewriter = WordDetector(), WordRewriter()
    texts = [(f"{i} {TOXIC} {CLEAN} " * 90)[:length] for i in range(number)]
    asked = guard(detector=words, rewriter=rewriter)
    assert len(asked.detect(texts)) == number
    asked.check_many(texts)
    asked.check("\n".join(texts[:8]))
    asked.moderate(texts[:70])
    for count, size in sizes(words.calls):
        assert count <= asked.policy.batch
        assert size <= MAX_CHARACTERS
    assert all(size <= MAX_REWRITTEN for _, size in sizes(rewriter.calls))


def test_each_call_has_its_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    run, runs = Deadline.run, []

    def counted(deadline: Deadline, call: Callable[[], object]) -> object:
        runs.append(deadline.name)
        return run(deadline, call)

    monkeypatch.setattr(Deadline, "run", counted)
    assert len(guard().detect([CLEAN] * 600)) == 600
    assert len(guard().detect(["The bus is late. " * 11_200])) == 1
    assert runs.count("detector") == 10 + 24


def test_a_shared_call_that_is_late_is_made_again_for_each_text() -> None:
    release = threading.Event()

    def overloaded(texts: Sequence[str]) -> list[Verdict]:
        if len(texts) > 1:
            release.wait(PATIENCE)
        return WordDetector().detect(texts)

    texts = [f"The weather in valley {number} is fine today." for number in range(9)]
    outcomes = guard(Policy(detect_timeout=0.5), detector=overloaded).check_many(texts)
    release.set()
    assert {outcome.action for outcome in outcomes} == {Action.PASSED}


class Hanging:
    """Judges words, and never answers while a text with ``hang`` in it is asked about."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        if any("hang" in text for text in texts):
            self.release.wait(PATIENCE)
        return WordDetector().detect(texts)


@pytest.mark.parametrize("hanging", [{9}, {0}, {2, 3, 7}])
def test_texts_that_hang_fail_alone(hanging: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardrail.engine.deadline.RETRY_SECONDS", 0.05)
    detector = Hanging()
    texts = [f"We {'hang' if i in hanging else 'stand'} for a long time in row {i}." for i in range(10)]
    outcomes = guard(Policy(detect_timeout=0.5), detector=detector).check_many(texts)
    detector.release.set()
    assert {i for i, outcome in enumerate(outcomes) if outcome.action is Action.BLOCKED} == hanging
    assert {outcomes[i].degraded for i in hanging} == {("detector_deadline",)}


def test_rows_of_a_file_that_hang_fail_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardrail.engine.deadline.RETRY_SECONDS", 0.05)
    detector = Hanging()
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(f'{{"text": "row {i} {"hangs" * (i == 1)}"}}\n' for i in range(9)))
    asked = guard(Policy(detect_timeout=0.5), detector=detector)
    summary = Job(source=source, target=target, scores_only=True, batch=4).run(asked)
    detector.release.set()
    (bad,) = (tmp_path / "out.jsonl.bad.jsonl").read_text().splitlines()
    assert '"line": 2' in bad
    assert (summary.counts.judged, summary.counts.bad) == (8, 1)


def test_detect_raises_where_a_text_cannot_be_judged() -> None:
    def breaks(texts: Sequence[str]) -> list[Verdict]:
        raise KeyError("text")

    with pytest.raises(PluginError) as caught:
        guard(detector=breaks).detect([CLEAN])
    assert caught.value.reason == "detector_error"
