"""However a stream ends, everything is closed and the outcome is known once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from guardrail import Action, Outcome, Policy, Verdict
from guardrail.engine.stream import AsyncStream, Stream
from guardrail.errors import AuditError, BlockedError, ManifestError, UsageError
from tests.streaming import CLEAN, INLINE, NEUTRAL, TOXIC, aread, guard, read, timeless
from tests.waiting import PATIENCE


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


class Log:
    """An audit that does something before it keeps an edit."""

    def __init__(self, first: Callable[[], object]) -> None:
        self.first = first
        self.kept: list[tuple[int | None, tuple[str, ...]]] = []

    def record(self, interventions: Sequence[Any], /) -> None:
        if interventions[0].start is not None:
            self.first()
        self.kept += [(one.start, one.degraded) for one in interventions]


def refuses() -> None:
    raise AuditError("the disk is full")


@pytest.mark.parametrize("is_async", [False, True])
def test_an_edit_that_could_not_be_recorded_is_no_part_of_the_outcome(is_async: bool) -> None:
    log = Log(refuses)
    ending = Ending(audit=log)
    pieces: list[str] = []
    chunks = [f"{CLEAN} {TOXIC} {CLEAN}"]

    async def consume(stream: AsyncStream) -> None:
        async for piece in stream:
            pieces.append(piece)

    async def run() -> Outcome | None:
        stream = ending.guard.astream(chunks)
        with pytest.raises(AuditError, match="disk is full"):
            await consume(stream)
        return stream.outcome

    def run_plainly() -> Outcome | None:
        stream = ending.guard.stream(chunks)
        with pytest.raises(AuditError, match="disk is full"):
            pieces.extend(stream)
        return stream.outcome

    outcome = asyncio.run(run()) if is_async else run_plainly()
    assert pieces == [CLEAN]
    assert unfinished(ending, outcome, CLEAN)
    assert outcome is not None
    assert (outcome.edits, outcome.action, outcome.verdict.flagged) == ((), Action.PASSED, False)
    assert log.kept == [(None, ("unfinished",))]


def test_a_stream_that_is_cancelled_while_an_edit_is_recorded_claims_no_text_that_nobody_got() -> None:
    asked, may_go_on = threading.Event(), threading.Event()

    def waits() -> None:
        asked.set()
        assert may_go_on.wait(PATIENCE)

    async def run() -> None:
        ending = Ending(audit=Log(waits))
        stream = ending.guard.astream([f"{CLEAN} {TOXIC} {CLEAN}"])
        assert await anext(stream) == CLEAN
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.to_thread(asked.wait, PATIENCE)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert unfinished(ending, stream.outcome, CLEAN)
        may_go_on.set()

    asyncio.run(run())


def test_a_stream_that_is_left_behind_its_last_piece_has_the_outcome_of_the_whole_text() -> None:
    stream = guard().stream([f"{CLEAN} ", TOXIC])
    assert [next(stream), next(stream)] == [CLEAN, f" {NEUTRAL}"]
    assert stream.outcome is None
    stream.close()
    assert timeless(stream.outcome) == timeless(guard().check(f"{CLEAN} {TOXIC}"))


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
