"""Streams: equal to unstreamed checks, nothing before its verdict, everything closed at the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail import Action, Guard, Outcome, Policy, Verdict
from guardrail.drive.stream import AsyncStream, Stream
from guardrail.errors import BlockedError, ManifestError, UsageError
from guardrail.outcome import Timings
from tests.fakes import BAD, BagEmbedder, WordDetector, WordRewriter

CLEAN = "The weather in the valley is fine today."
TOXIC = "The driver of that bus is an idiot."
NEUTRAL = TOXIC.replace("idiot", "person")
INLINE = Policy(detect_timeout=None, rewrite_timeout=None)
SHORT = replace(INLINE, segment_min=4, segment_max=60, max_rewrites=3)


def guard(policy: Policy = INLINE, **parts: Any) -> Guard:
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(policy=policy, **fakes | parts)


def timeless(outcome: Outcome | None) -> Outcome:
    assert outcome is not None
    return replace(outcome, timings=Timings())


def read(stream: Stream) -> tuple[list[str], Outcome]:
    pieces = list(stream)
    return pieces, timeless(stream.outcome)


async def aread(stream: AsyncStream) -> tuple[list[str], Outcome]:
    pieces = [piece async for piece in stream]
    return pieces, timeless(stream.outcome)


async def later(chunks: Iterable[str]) -> AsyncIterator[str]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def cut(text: str, places: Iterable[int]) -> list[str]:
    """The text in pieces; equal places give empty ones."""
    ends = sorted(places)
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


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
    drawn = random.Random(1)
    shared = guard(SHORT)
    for _ in range(2_000):
        text = draw_text(drawn)
        expected = timeless(shared.check(text))
        for _ in range(50):
            places = [drawn.randint(0, len(text)) for _ in range(drawn.randint(0, 6))]
            pieces, outcome = read(shared.stream(cut(text, places)))
            assert outcome == expected
            assert "".join(pieces) == expected.text


def test_the_refusal_ends_the_stream_and_closes_the_source() -> None:
    policy = replace(INLINE, ladder=("block",), refusal="[no]")
    source = Source([CLEAN, f" {TOXIC} ", CLEAN, CLEAN])
    stream = guard(policy).stream(source)
    assert "".join(stream) == f"{CLEAN} [no]"
    assert stream.outcome is not None
    assert stream.outcome.action is Action.BLOCKED
    assert stream.outcome.degraded == ()
    assert source.closed
    assert source.left == [CLEAN, CLEAN]


def test_raise_carries_what_was_handed_out() -> None:
    policy = replace(INLINE, ladder=("block",), block="raise")
    source = Source([CLEAN, f" {TOXIC} ", CLEAN])
    stream = guard(policy).stream(source)
    pieces: list[str] = []
    with pytest.raises(BlockedError) as caught:
        pieces.extend(stream)
    assert pieces == [CLEAN]
    assert caught.value.outcome.text == CLEAN
    assert caught.value.outcome is stream.outcome
    assert source.closed


def test_a_stream_refuses_to_replace_the_whole_text() -> None:
    whole = guard(replace(INLINE, block="whole"))
    with pytest.raises(UsageError, match="block='segment'"):
        whole.stream([CLEAN])
    with pytest.raises(UsageError, match="block='segment'"):
        whole.astream([CLEAN])


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


class Source(Iterator[str]):
    """Chunks, plain or asynchronous, that can be closed and may fail at their end."""

    def __init__(self, chunks: Iterable[str], error: Exception | None = None) -> None:
        self.left = list(chunks)
        self.error = error
        self.closed = 0

    def __next__(self) -> str:
        if self.left:
            return self.left.pop(0)
        if self.error:
            raise self.error
        raise StopIteration

    def close(self) -> None:
        self.closed += 1


class AsyncSource(AsyncIterator[str]):
    def __init__(self, chunks: Iterable[str], error: Exception | None = None) -> None:
        self.plain = Source(chunks, error)
        self.forever = False

    @property
    def closed(self) -> int:
        return self.plain.closed

    async def __anext__(self) -> str:
        await asyncio.sleep(0)
        try:
            return next(self.plain)
        except StopIteration:
            if self.forever:
                await asyncio.Event().wait()
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self.plain.close()


class Ending:
    """A guard whose hook keeps the outcomes."""

    def __init__(self, policy: Policy = INLINE, **parts: Any) -> None:
        self.heard: list[Outcome] = []
        self.guard = guard(policy, on_outcome=self.heard.append, **parts)


def test_the_hook_hears_a_stream_once_when_it_has_ended() -> None:
    ending = Ending()
    stream = ending.guard.stream([CLEAN, f" {TOXIC}"])
    next(stream)
    assert ending.heard == []
    list(stream)
    stream.close()
    assert ending.heard == [stream.outcome]
    asyncio.run(aread(ending.guard.astream([CLEAN])))
    assert len(ending.heard) == 2


def unfinished(ending: Ending, outcome: Outcome | None, shown: str) -> bool:
    assert outcome is not None
    return ending.heard == [outcome] and outcome.text == shown and outcome.degraded == ("unfinished",)


def test_an_exception_of_the_source_goes_on_and_the_unjudged_tail_is_dropped() -> None:
    ending = Ending()
    source = Source([f"{CLEAN} {TOXIC} And you are"], KeyError("its own"))
    stream = ending.guard.stream(source)
    pieces: list[str] = []
    with pytest.raises(KeyError, match="its own") as caught:
        pieces.extend(stream)
    assert pieces == [CLEAN, f" {NEUTRAL}"]
    assert source.closed
    assert unfinished(ending, stream.outcome, f"{CLEAN} {NEUTRAL}")
    assert caught.traceback[-1].name == "__next__"  # the caller sees where in the source it was raised
    assert list(stream) == []


def test_an_exception_of_an_asynchronous_source_does_the_same() -> None:
    async def run() -> None:
        ending = Ending()
        source = AsyncSource([f"{CLEAN} {TOXIC} And you are"], KeyError("its own"))
        stream = ending.guard.astream(source)
        pieces = [await anext(stream), await anext(stream)]
        with pytest.raises(KeyError, match="its own"):
            await anext(stream)
        assert pieces == [CLEAN, f" {NEUTRAL}"]
        assert source.closed
        assert unfinished(ending, stream.outcome, f"{CLEAN} {NEUTRAL}")

    asyncio.run(run())


@pytest.mark.parametrize("how", ["close", "with", "drop"])
def test_a_stream_that_is_left_early_ends_with_what_was_shown(how: str) -> None:
    ending = Ending()
    source = Source([f"{CLEAN} {TOXIC} {CLEAN}"])
    stream: Stream | None = ending.guard.stream(source)
    assert stream is not None
    assert next(stream) == CLEAN
    if how == "close":
        stream.close()
    elif how == "with":
        with stream:
            pass
    else:
        stream = None
        assert [outcome.text for outcome in ending.heard] == [CLEAN]
    assert source.closed
    if stream is not None:
        assert unfinished(ending, stream.outcome, CLEAN)
        assert list(stream) == []


def test_a_stream_that_was_never_read_closes_its_source_and_has_no_outcome() -> None:
    ending = Ending()
    source, async_source = Source([CLEAN]), AsyncSource([CLEAN])
    with ending.guard.stream(source) as stream:
        pass
    asyncio.run(ending.guard.astream(async_source).aclose())
    assert source.closed
    assert async_source.closed
    assert stream.outcome is None
    assert ending.heard == []


def test_a_generator_as_source_is_closed_where_it_stands() -> None:
    closed: list[str] = []

    def source() -> Iterator[str]:
        try:
            yield f"{CLEAN} "
            yield CLEAN
        finally:
            closed.append("closed")

    stream = guard().stream(source())
    next(stream)
    assert not closed
    stream.close()
    assert closed == ["closed"]


@pytest.mark.parametrize("how", ["break", "cancel", "wait_for"])
def test_an_asynchronous_stream_that_is_left_early_closes_everything(how: str) -> None:
    async def run() -> None:
        ending = Ending()
        source = AsyncSource([f"{CLEAN} {TOXIC} And"])
        source.forever = True
        pieces: list[str] = []
        stream = ending.guard.astream(source)
        halfway = asyncio.Event()

        async def consume() -> None:
            async with stream:
                async for piece in stream:
                    pieces.append(piece)
                    if len(pieces) == 2:
                        halfway.set()
                        if how == "break":
                            break

        task = asyncio.create_task(consume())
        await halfway.wait()
        if how == "cancel":
            await asyncio.sleep(0)
            task.cancel()
        if how == "break":
            await task
        else:
            with pytest.raises((asyncio.CancelledError, asyncio.TimeoutError)):
                await asyncio.wait_for(task, 0.01)
        assert pieces == [CLEAN, f" {NEUTRAL}"]
        assert source.closed
        assert unfinished(ending, stream.outcome, f"{CLEAN} {NEUTRAL}")

    asyncio.run(run())


def test_a_hook_that_raises_reaches_the_reader_and_the_source_is_closed() -> None:
    def hook(outcome: Outcome) -> None:
        raise RuntimeError("the hook")

    source = Source([CLEAN])
    stream = guard(on_outcome=hook).stream(source)
    assert next(stream) == CLEAN
    with pytest.raises(RuntimeError, match="the hook"):
        next(stream)
    assert source.closed


def test_a_broken_model_file_is_raised_and_nothing_more_is_shown() -> None:
    def altered(texts: Sequence[str]) -> list[Verdict]:
        raise ManifestError("model.onnx was altered")

    source = Source([CLEAN])
    stream = guard(detector=altered).stream(source)
    with pytest.raises(ManifestError):
        next(stream)
    assert source.closed
    assert list(stream) == []


@pytest.mark.parametrize(("on_error", "shown"), [("closed", ""), ("open", CLEAN), ("lexicon", CLEAN)])
def test_a_failing_detector_takes_the_error_policy_in_streams_too(on_error: Any, shown: str) -> None:
    def fails(texts: Sequence[str]) -> list[Verdict]:
        raise ValueError

    policy = replace(INLINE, on_error=on_error, refusal="")
    _, outcome = read(guard(policy, detector=fails).stream([CLEAN]))
    assert outcome.text == shown
    assert outcome.degraded == ("detector_error",)


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
