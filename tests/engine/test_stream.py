"""Streams: equal to unstreamed checks, and nothing leaves before its verdict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import Action, Verdict
from guardrail.engine.steps import PAUSE
from tests.fakes import BAD, WordDetector
from tests.streaming import CLEAN, INLINE, NEUTRAL, SHORT, TOXIC, aread, cut, guard, later, read, timeless

WORDS = [*BAD, "the", "cat.", "sat!", "on", "a\n", "mat?", "\n\n", "- x", "`code`", "Dr.", "e.g.", "3.14"]
WORDS += ["```\n", "x" * 70, "\ud800", "…", "”", "\r\n", "", "。", "👍🏽"]


def draw_text(drawn: random.Random) -> str:
    return "".join(drawn.choice(WORDS) + drawn.choice(["", " ", " "]) for _ in range(drawn.randint(0, 8)))


@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), st.data())
def test_streamed_equals_unstreamed_whatever_the_chunks(text: str, data: st.DataObject) -> None:
    chunks = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    expected = timeless(guard(SHORT).check(text))
    pieces, outcome = read(guard(SHORT).stream(chunks))
    assert outcome == expected
    assert "".join(pieces) == expected.text


@settings(max_examples=30)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), st.data())
def test_an_asynchronous_stream_equals_a_plain_one(text: str, data: st.DataObject) -> None:
    chunks = cut(text, data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    plain = read(guard(SHORT).stream(chunks))
    assert asyncio.run(aread(guard(SHORT).astream(later(chunks)))) == plain
    assert asyncio.run(aread(guard(SHORT).astream(chunks))) == plain


@pytest.mark.parametrize(
    "chunks",
    [[], [""], ["", ""], [" "], ["\n", "\n"], ["", CLEAN, ""], ["\ud800", "\udc00 ", "\udfff stays."]],
)
def test_what_holds_no_toxic_word_comes_out_as_it_went_in(chunks: list[str]) -> None:
    pieces, outcome = read(guard().stream(chunks))
    assert "".join(pieces) == "".join(chunks) == outcome.text
    assert "" not in pieces
    assert outcome.action is Action.PASSED
    assert outcome.degraded == ()


def test_one_character_at_a_time_gives_whole_sentences() -> None:
    pieces, _ = read(guard().stream(f"{CLEAN} {TOXIC}\n\n{CLEAN}"[i : i + 1] for i in range(200)))
    assert pieces == [CLEAN, f" {NEUTRAL}", f"\n\n{CLEAN}"]


def test_a_tail_without_a_full_stop_is_judged_too() -> None:
    pieces, outcome = read(guard().stream([CLEAN, " and you are an id", "iot"]))
    assert "".join(pieces) == f"{CLEAN} and you are an person"
    assert outcome.action is Action.REWRITTEN


def test_at_a_pause_all_is_judged_and_shown_before_more_is_read() -> None:
    asked: list[str] = []
    pieces: list[str] = []

    def chunks() -> Iterator[Any]:
        for chunk in (f"{CLEAN} You are an id", PAUSE, "iot, they say", PAUSE, "", PAUSE, " - twice."):
            yield chunk
            asked.append("".join(pieces))

    stream = guard().stream(chunks())
    for piece in stream:
        pieces.append(piece)  # the source looks at it meanwhile
    assert asked[1] == f"{CLEAN} You are an id"
    assert "iot" not in "".join(pieces)
    assert asked[3] == asked[5]
    assert "".join(pieces).endswith(" - twice.")
    assert stream.outcome is not None
    assert stream.outcome.text == "".join(pieces)


@given(st.lists(st.sampled_from([CLEAN, TOXIC, "Shorter. ", "\n", ""]), max_size=8))
def test_a_pause_between_sentences_changes_nothing(sentences: list[str]) -> None:
    paused = [part for sentence in sentences for part in (f"{sentence} ", PAUSE)]
    text = "".join(f"{sentence} " for sentence in sentences)
    later_, plain = guard().stream(paused), guard().check(text)  # type: ignore[arg-type]
    assert "".join(later_) == plain.text


@pytest.mark.slow
def test_a_megabyte_in_one_chunk_comes_out_in_pieces() -> None:
    text = f"{CLEAN} " * (1_000_000 // len(CLEAN))
    pieces, outcome = read(guard().stream([text]))
    assert "".join(pieces) == text == outcome.text
    assert len(pieces) > 20_000


def test_text_without_a_boundary_is_cut_at_a_number_of_characters_streamed_or_not() -> None:
    policy = replace(INLINE, segment_min=4, segment_max=50)
    text = "x" * 220
    pieces, outcome = read(guard(policy).stream(iter(text)))
    assert max(map(len, pieces)) <= 50
    assert len(pieces) == 5
    assert outcome == timeless(guard(policy).check(text))


def test_a_sentence_is_handed_out_with_the_first_character_after_it() -> None:
    taken: list[str] = []

    def source() -> Iterator[str]:
        for chunk in [CLEAN, " ", "See", " you", " tomorrow", ".", "\n", "Bye"]:
            taken.append(chunk)
            yield chunk

    stream = guard(SHORT).stream(source())
    assert not taken
    assert next(stream) == CLEAN
    assert taken == [CLEAN, " "]
    assert next(stream) == " See you tomorrow."
    assert taken[-1] == "\n"
    assert next(stream) == "\nBye"
    assert stream.outcome is None
    assert list(stream) == []
    assert stream.outcome is not None


class Watched:
    """A source that is cut into equal chunks, and a detector that keeps what it judged."""

    def __init__(self, text: str, size: int) -> None:
        self.text, self.size = text, size
        self.words = WordDetector()
        self.judged: list[str] = []

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        self.judged += texts
        return self.words.detect(texts)

    def source(self) -> Iterator[str]:
        for start in range(0, len(self.text), self.size):
            yield self.text[start : start + self.size]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 50))
def test_no_character_leaves_before_its_verdict(lengths: list[int], size: int) -> None:
    words = [f"<{i:x}>" + "x" * length for i, length in enumerate(lengths)]
    watched = Watched(". ".join(words), size)
    shown = 0
    for piece in guard(SHORT, detector=watched).stream(watched.source()):
        assert piece.strip() in watched.judged
        shown += piece.count("<")
    assert shown == len(words)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 50))
def test_no_character_of_a_stream_is_scored_more_than_k_times(lengths: list[int], size: int) -> None:
    policy = replace(SHORT, context=40)
    words = [f"<{i:x}>" + "x" * length for i, length in enumerate(lengths)]
    watched = Watched(". ".join(words), size)
    list(guard(policy, detector=watched).stream(watched.source()))
    in_reach = -(-policy.context // policy.segment_min) + 1
    most = max(sum(f"<{i:x}>" in text for text in watched.judged) for i in range(len(words)))
    assert most <= 2 + 2 * in_reach


@pytest.mark.slow
def test_a_hundred_thousand_random_cuts_give_the_unstreamed_outcome() -> None:
    """One cut in ten is rewritten, which takes far longer than to mask."""
    drawn = random.Random(1)
    guards = {guard(SHORT): 5, guard(replace(SHORT, ladder=("mask", "block"))): 45}
    for _ in range(2_000):
        text = draw_text(drawn)
        for shared, times in guards.items():
            expected = timeless(shared.check(text))
            for _ in range(times):
                places = [drawn.randint(0, len(text)) for _ in range(drawn.randint(0, 6))]
                pieces, outcome = read(shared.stream(cut(text, places)))
                assert outcome == expected
                assert "".join(pieces) == expected.text


@pytest.mark.parametrize("wrong", [None, 3, b"bytes"])
def test_a_chunk_that_is_no_str_is_a_type_error_that_names_its_type(wrong: Any) -> None:
    for chunks in ([CLEAN, wrong], [wrong]):
        with pytest.raises(TypeError, match=type(wrong).__name__):
            list(guard().stream(chunks))
        with pytest.raises(TypeError, match=type(wrong).__name__):
            asyncio.run(aread(guard().astream(chunks)))


@pytest.mark.parametrize("wrong", [CLEAN, b"bytes", 3, None])
def test_a_source_that_is_no_iterable_of_chunks_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError):
        guard().stream(wrong)
    with pytest.raises(TypeError):
        guard().astream(wrong)


def test_two_hundred_interleaved_streams_do_not_mix() -> None:
    shared = guard()

    async def one(number: int) -> None:
        drawn = random.Random(number)
        text = f"Text {number} begins here. The driver of bus {number} is an idiot. Text {number} is over."
        places = [drawn.randint(0, len(text)) for _ in range(9)]
        pieces, outcome = await aread(shared.astream(later(cut(text, places))))
        assert "".join(pieces) == outcome.text == text.replace("idiot", "person")

    async def run() -> None:
        await asyncio.gather(*map(one, range(200)))

    asyncio.run(run())


def test_files_and_objects_that_only_make_iterators_are_sources_too(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text(f"{CLEAN}\n{TOXIC}\n")
    with path.open() as lines:
        assert "".join(guard().stream(lines)) == f"{CLEAN}\n{NEUTRAL}\n"

    class Chunks(AsyncIterable[str]):
        def __aiter__(self) -> AsyncIterator[str]:
            return later([CLEAN, TOXIC])

    pieces, _ = asyncio.run(aread(guard().astream(Chunks())))
    assert "".join(pieces) == CLEAN + NEUTRAL
