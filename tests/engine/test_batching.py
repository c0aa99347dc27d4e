"""Coroutines share model calls, wait for each other within bounds, and nobody harms another."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest

from guardrail import Action, Guard, Outcome, Policy, Verdict
from guardrail.engine.batching import MAX_CONCURRENT_CALLS
from guardrail.engine.deadline import Worker
from guardrail.errors import ConfigError, ManifestError, PluginError
from guardrail.outcome import Timings
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.linear import min_seconds
from tests.waiting import PATIENCE, until

CLEAN = "The weather in the valley is fine today."
TOXIC = "The driver of that bus is an idiot."
NEUTRAL = TOXIC.replace("idiot", "person")
PATIENT = Policy(batch_wait=1000 * PATIENCE)
"""A call that waits for companions in vain misses its deadline of half a minute, and the outcome says so."""


def guard(policy: Policy | None = None, **parts: Any) -> Guard:
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(policy=policy, **fakes | parts)


def timeless(outcome: Outcome) -> Outcome:
    return replace(outcome, timings=Timings())


class Gate:
    """A detector whose calls stand at a gate; counts the texts and calls before it."""

    def __init__(self) -> None:
        self.words = WordDetector()
        self.open = threading.Event()
        self.entered: list[tuple[str, ...]] = []
        self.inside = 0
        self.max_inside = 0
        self._lock = threading.Lock()

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        with self._lock:
            self.entered.append(tuple(texts))
            self.inside += 1
            self.max_inside = max(self.inside, self.max_inside)
        assert self.open.wait(PATIENCE)
        with self._lock:
            self.inside -= 1
        return self.words.detect(texts)


async def busy(shared: Guard, gate: Gate) -> list[asyncio.Task[Outcome]]:
    """As many checks as models may run at a time, each in a model call of its own."""
    tasks: list[asyncio.Task[Outcome]] = []
    while len(tasks) < MAX_CONCURRENT_CALLS:
        tasks.append(asyncio.create_task(shared.acheck(CLEAN)))
        await until(lambda: len(gate.entered) == len(tasks))
    return tasks


async def checks(shared: Guard, texts: Sequence[str]) -> list[Outcome]:
    return await asyncio.gather(*map(shared.acheck, texts))


def test_concurrent_checks_share_one_model_call() -> None:
    detector = WordDetector()
    outcomes = asyncio.run(checks(guard(PATIENT, detector=detector), [CLEAN] * 64))
    assert len(detector.calls) == 1
    assert all(outcome.text == CLEAN for outcome in outcomes)


def test_concurrent_checks_share_calls_of_every_kind_and_give_what_check_gives() -> None:
    detector, rewriter = WordDetector(), WordRewriter()
    shared = guard(PATIENT, detector=detector, rewriter=rewriter)
    texts = [f"{CLEAN} {TOXIC}", CLEAN, f"{TOXIC} {CLEAN} {TOXIC}", ""] * 8
    outcomes = asyncio.run(checks(shared, texts))
    assert [timeless(outcome) for outcome in outcomes] == [timeless(guard().check(text)) for text in texts]
    assert sum(map(len, rewriter.calls)) == 24
    assert len(rewriter.calls) <= 3
    assert len(detector.calls) < len(texts)


def test_concurrent_streams_share_model_calls() -> None:
    detector = WordDetector()
    shared = guard(PATIENT, detector=detector)

    async def one() -> str:
        return "".join([piece async for piece in shared.astream([CLEAN, " ", CLEAN])])

    async def run() -> list[str]:
        return await asyncio.gather(*(one() for _ in range(16)))

    assert asyncio.run(run()) == [f"{CLEAN} {CLEAN}"] * 16
    assert [len(call) for call in detector.calls] == [16, 16, 16]  # the first, the second, the second jointly


def test_a_call_holds_no_more_texts_than_the_policy_says() -> None:
    detector = WordDetector()
    asyncio.run(checks(guard(replace(PATIENT, batch=8), detector=detector), [CLEAN] * 30))
    assert sorted(map(len, detector.calls)) == [6, 8, 8, 8]


def test_a_lone_caller_does_not_wait_for_companions() -> None:
    assert asyncio.run(guard(PATIENT).acheck(TOXIC)).text == NEUTRAL


def test_a_call_does_not_wait_longer_than_batch_wait_for_texts_that_ask_nothing() -> None:
    async def run() -> float:
        shared = guard(Policy(batch_wait=5.0))
        silent = asyncio.Event()

        async def silence() -> Any:
            await silent.wait()
            yield CLEAN

        waiting = asyncio.create_task(anext(shared.astream(silence())))
        await asyncio.sleep(0)
        started = time.perf_counter()
        assert (await shared.acheck(CLEAN)).degraded == (), "it would miss its deadline"
        seconds = time.perf_counter() - started
        silent.set()
        await waiting
        return seconds

    assert asyncio.run(run()) > 0.004


def test_calls_that_come_while_models_run_go_together_when_one_is_free() -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(Policy(batch_wait=0.0), detector=gate)
        tasks = await busy(shared, gate)
        tasks += [asyncio.create_task(shared.acheck(CLEAN)) for _ in range(20)]
        await asyncio.sleep(0.005)
        assert len(gate.entered) == MAX_CONCURRENT_CALLS
        gate.open.set()
        await asyncio.gather(*tasks)
        assert [len(call) for call in gate.entered] == [1] * MAX_CONCURRENT_CALLS + [20]
        assert gate.max_inside == MAX_CONCURRENT_CALLS

    asyncio.run(run())


def test_the_event_loop_keeps_ticking_while_models_run() -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(detector=gate)
        stream = shared.astream([CLEAN])
        tasks = [asyncio.create_task(shared.acheck(TOXIC)), asyncio.create_task(anext(stream))]
        await until(lambda: gate.entered)
        ticks = 0
        for _ in range(50):
            await asyncio.sleep(0)
            ticks += 1
        assert ticks == 50
        assert not any(task.done() for task in tasks)
        gate.open.set()
        await asyncio.gather(*tasks)
        await stream.aclose()

    asyncio.run(run())


@pytest.mark.slow
def test_a_long_text_does_not_hold_up_the_event_loop() -> None:
    text = f"{CLEAN} " * (300_000 // len(CLEAN))

    async def longest() -> float:
        """Seconds of this thread that the loop spends at most on anything else before it comes back."""
        task = asyncio.create_task(guard(rewriter=None).acheck(text))
        found = 0.0
        while not task.done():
            started = time.thread_time()
            await asyncio.sleep(0)
            found = max(found, time.thread_time() - started)
        assert task.result().text == text
        return found

    inline = guard(Policy(detect_timeout=None), rewriter=None)
    gc.disable()  # it would hold up anything, for as long as the tests before this one make it
    try:
        at_once = min_seconds(partial(inline.check, text), tries=1)
        assert min(asyncio.run(longest()) for _ in range(3)) < at_once / 5, "it is about a fiftieth"
    finally:
        gc.enable()


def test_the_queue_is_bounded_and_the_backlog_is_served_in_order() -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(Policy(batch_wait=0.0, queue=8, batch=4), detector=gate)
        order: list[int] = []

        async def one(number: int) -> None:
            await shared.acheck(CLEAN)
            order.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(40)]
        await until(lambda: len(gate.entered) == MAX_CONCURRENT_CALLS)
        queue = shared.statistics().queues["detector"]
        assert queue.waiting == queue.waiting_texts == 8
        assert queue.backlog == 40 - 8 - 4 * MAX_CONCURRENT_CALLS
        assert queue.running == MAX_CONCURRENT_CALLS
        gate.open.set()
        await asyncio.gather(*tasks)
        assert sorted(order) == list(range(40))
        assert [len(call) for call in gate.entered] == [4] * 10
        queue = shared.statistics().queues["detector"]
        assert (queue.waiting, queue.backlog, queue.running) == (0, 0, 0)
        assert queue.batch_sizes == {4: 10}
        assert (queue.calls, queue.texts) == (10, 40)

    asyncio.run(run())


def test_a_call_larger_than_the_queue_goes_through_alone() -> None:
    policy = Policy(queue=1, segment_min=4)
    outcomes = asyncio.run(checks(guard(policy), [f"{CLEAN} " * 10] * 3))
    assert [outcome.text for outcome in outcomes] == [f"{CLEAN} " * 10] * 3


class Fussy(WordDetector):
    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        if any("poison" in text for text in texts):
            raise ValueError("poison")
        return super().detect(texts)


def test_a_text_that_breaks_the_detector_fails_alone() -> None:
    texts = [CLEAN, "There is poison here.", TOXIC]
    outcomes = asyncio.run(checks(guard(PATIENT, detector=Fussy()), texts))
    assert [outcome.action.value for outcome in outcomes] == ["passed", "blocked", "rewritten"]
    assert [outcome.degraded for outcome in outcomes] == [(), ("detector_error",), ()]


def test_a_broken_model_file_reaches_every_caller() -> None:
    def altered(texts: Sequence[str]) -> list[Verdict]:
        raise ManifestError("model.onnx was altered")

    async def run() -> list[Any]:
        shared = guard(PATIENT, detector=altered)
        return await asyncio.gather(*(shared.acheck(CLEAN) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in asyncio.run(run())] == [ManifestError] * 3


def test_a_cancelled_caller_leaves_and_its_companions_get_their_replies() -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(PATIENT, detector=gate)
        tasks = [asyncio.create_task(shared.acheck(TOXIC)) for _ in range(3)]
        await until(lambda: gate.entered)
        tasks[1].cancel()
        await asyncio.sleep(0)
        gate.open.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert [o.text for o in outcomes if isinstance(o, Outcome)] == [NEUTRAL, NEUTRAL]

    asyncio.run(run())


def test_who_is_cancelled_while_waiting_is_not_sent_to_the_model() -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(Policy(batch_wait=0.0), detector=gate)
        tasks = await busy(shared, gate)
        gone = asyncio.create_task(shared.acheck(TOXIC))
        await asyncio.sleep(0.002)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert len(gate.entered) == MAX_CONCURRENT_CALLS

    asyncio.run(run())


@pytest.mark.parametrize("way", ["acheck", "astream"])
def test_deadlines_return_on_time(way: str) -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(Policy(detect_timeout=0.05), detector=gate)
        if way == "acheck":
            outcome: Outcome | None = await shared.acheck(CLEAN)
        else:
            stream = shared.astream([CLEAN])
            assert [piece async for piece in stream] == [shared.policy.refusal]
            outcome = stream.outcome
        assert outcome is not None
        assert outcome.action is Action.BLOCKED
        assert outcome.degraded == ("detector_deadline",)
        gate.open.set()

    asyncio.run(run())


def test_the_deadline_counts_the_waiting_for_a_model_too() -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(Policy(detect_timeout=0.2, batch_wait=0.0), detector=gate)
        tasks = await busy(shared, gate)
        tasks += [asyncio.create_task(shared.acheck(CLEAN)) for _ in range(5)]
        outcomes = await asyncio.gather(*tasks)
        reasons = {outcome.degraded for outcome in outcomes}
        assert ("detector_deadline",) in reasons
        # Where the machine is so busy that two were late before the others came, the circuit is open.
        assert reasons <= {("detector_deadline",), ("detector_circuit_open",)}
        gate.open.set()

    asyncio.run(run())


def test_two_calls_that_hang_open_the_circuit_for_coroutines_too() -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(Policy(detect_timeout=0.02), detector=gate)
        seen = [(await shared.acheck(CLEAN)).degraded]
        while seen[-1] == ("detector_deadline",):
            seen.append((await shared.acheck(CLEAN)).degraded)
        assert seen[-1] == ("detector_circuit_open",)
        await until(lambda: len(gate.entered) >= 2)  # a thread may have been given up before it began
        assert len(gate.entered) <= 1 + MAX_CONCURRENT_CALLS  # another may enter as the first is given up
        gate.open.set()

    asyncio.run(run())


def test_nothing_is_released_because_a_wait_was_over() -> None:
    async def run() -> None:
        gate = Gate()
        shared = guard(Policy(batch_wait=0.0), detector=gate)
        stream = shared.astream([CLEAN])
        piece = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.01)
        assert not piece.done()
        gate.open.set()
        assert await piece == CLEAN
        await stream.aclose()

    asyncio.run(run())


class MarkedWordRewriter(WordRewriter):
    """Asked as the shipped rewriter is, with the toxic characters."""

    def rewrite_marked(self, segments: Sequence[str], spans: object, n: int) -> list[list[str]]:
        return self.rewrite(segments, n)


def test_loading_the_rewriter_is_no_part_of_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(*, seconds: float) -> Outcome:
        """Of a text whose rewriter takes longer to load than its deadline."""

        @cache
        def load(name: str) -> MarkedWordRewriter:
            time.sleep(1.5 * seconds)
            return MarkedWordRewriter()

        monkeypatch.setattr("guardrail.engine.plugins.shipped_rewriter", load)
        shared = guard(Policy(rewrite_timeout=seconds), rewriter="shipped", verifier=None)
        return asyncio.run(shared.acheck(TOXIC))

    # On a busy machine the rewriter itself may miss a short deadline.
    assert any(outcome(seconds=seconds).text == NEUTRAL for seconds in (0.05, 0.5, 5.0))


def test_a_missing_rewriter_masks_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PluginError("no base", reason="rewriter_missing")

    monkeypatch.setattr("guardrail.engine.plugins.shipped_rewriter", missing)
    outcome = asyncio.run(guard(rewriter="shipped", verifier=None).acheck(TOXIC))
    assert outcome.action is Action.MASKED
    assert outcome.degraded == ("rewriter_missing",)


def test_one_guard_serves_one_event_loop_after_another_and_forgets_them() -> None:
    shared = guard()
    for _ in range(3):
        assert asyncio.run(shared.acheck(TOXIC)).text == NEUTRAL
    assert shared.statistics().event_loops == 1


def test_one_guard_serves_event_loops_in_several_threads() -> None:
    shared = guard()
    results: list[str] = []

    def run() -> None:
        results.extend(outcome.text for outcome in asyncio.run(checks(shared, [TOXIC] * 20)))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [NEUTRAL] * 160


def test_a_loop_that_closes_while_a_model_runs_leaves_no_trace() -> None:
    gate = Gate()
    shared = guard(detector=gate)

    async def leave() -> None:
        task = asyncio.create_task(shared.acheck(CLEAN))
        await until(lambda: gate.entered)
        task.cancel()

    asyncio.run(leave())
    gate.open.set()
    assert asyncio.run(shared.acheck(TOXIC)).text == NEUTRAL


def in_child(shared: Guard, results: Any) -> None:
    results.put(asyncio.run(shared.acheck(TOXIC)).text)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    shared = guard()
    asyncio.run(shared.acheck(TOXIC))
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=in_child, args=(shared, results))
    child.start()
    child.join(PATIENCE)
    assert child.exitcode == 0
    assert results.get() == NEUTRAL


def test_the_threads_end_with_the_guard() -> None:
    others = threading.enumerate()
    shared = guard()
    asyncio.run(checks(shared, [TOXIC] * 4))
    mine = [thread for thread in threading.enumerate() if isinstance(thread, Worker)]
    mine = [worker for worker in mine if worker not in others]
    assert mine
    del shared
    gc.collect()
    for worker in mine:
        worker.join(PATIENCE)
        assert not worker.is_alive()


@pytest.mark.parametrize("wrong", [{"batch_wait": -1.0}, {"batch_wait": float("inf")}, {"queue": 0}])
def test_a_wrong_wait_or_queue_is_an_error_that_names_it(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        Policy(**wrong)
