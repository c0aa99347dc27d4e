"""Plain threads: alone they call models themselves, together they share calls; nobody harms another."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from guardrail import Guard, Outcome, Policy, Verdict
from guardrail.errors import ManifestError
from tests.fakes import WordDetector
from tests.streaming import CLEAN, INLINE, NEUTRAL, TOXIC, guard, timeless

TEXTS = [f"Number {n} is here. {TOXIC} {CLEAN}" for n in range(24)]


class Slow(WordDetector):
    """Takes its time, so that others come meanwhile; notes the threads that it is called in."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        self.threads.append(threading.current_thread().name)
        time.sleep(0.002)
        return super().detect(texts)


def together(check: Callable[[str], Any], texts: Sequence[str]) -> list[Any]:
    """What each of as many threads as texts gets; they start at the same time."""
    start = threading.Barrier(len(texts))

    def one(text: str) -> Any:
        start.wait(10.0)
        return check(text)

    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(one, texts))


def most_alone(policy: Policy) -> int:
    """Texts in the largest call of the detector that one text needs."""
    detector = WordDetector()
    guard(policy, detector=detector).check(TEXTS[0])
    return max(map(len, detector.calls))


def test_a_thread_that_is_alone_calls_the_model_itself() -> None:
    detector = Slow()
    before = set(threading.enumerate())
    guard(detector=detector).check(TOXIC)
    assert set(detector.threads) == {threading.current_thread().name}
    assert set(threading.enumerate()) <= before, "no thread was started for it"


@pytest.mark.parametrize("policy", [INLINE, Policy()])
def test_threads_that_ask_together_share_model_calls_and_get_their_own_outcomes(policy: Policy) -> None:
    alone = [timeless(guard(policy).check(text)) for text in TEXTS]
    detector = Slow()
    outcomes: list[Outcome] = together(guard(policy, detector=detector).check, TEXTS)
    assert [timeless(outcome) for outcome in outcomes] == alone
    assert max(map(len, detector.calls)) > most_alone(policy), "one call for several of them"


def test_streams_in_threads_share_them_too() -> None:
    detector = Slow()
    shared = guard(detector=detector)
    streamed = together(lambda text: "".join(shared.stream([text])), TEXTS)
    assert streamed == [text.replace(TOXIC, NEUTRAL) for text in TEXTS]
    assert max(map(len, detector.calls)) > most_alone(INLINE)


def test_a_model_that_hangs_keeps_no_thread_beyond_its_deadline() -> None:
    release = threading.Event()

    def hangs(texts: Sequence[str]) -> Any:
        release.wait(10.0)
        raise RuntimeError

    started = time.perf_counter()
    outcomes: list[Outcome] = together(
        guard(replace(INLINE, detect_timeout=0.05), detector=hangs).check, TEXTS[:6]
    )
    assert time.perf_counter() - started < 5.0
    release.set()
    reasons = {reason for outcome in outcomes for reason in outcome.degraded}
    assert reasons <= {"detector_deadline", "detector_circuit_open"}
    assert all(outcome.degraded for outcome in outcomes)


def test_one_text_that_breaks_the_detector_fails_alone() -> None:
    class Picky(Slow):
        def detect(self, texts: Sequence[str]) -> list[Verdict]:
            verdicts = super().detect(texts)
            if any("Number 3 " in text for text in texts):
                raise ValueError
            return verdicts

    outcomes: list[Outcome] = together(guard(detector=Picky()).check, TEXTS)
    assert [n for n, outcome in enumerate(outcomes) if outcome.degraded] == [3]


def test_a_broken_model_file_is_raised_in_every_thread() -> None:
    def altered(texts: Sequence[str]) -> Any:
        time.sleep(0.002)
        raise ManifestError("model.onnx was altered")

    broken = guard(detector=altered)

    def failure(text: str) -> str:
        with pytest.raises(ManifestError) as caught:
            broken.check(text)
        return str(caught.value)

    assert set(together(failure, TEXTS)) == {"model.onnx was altered"}


def batching_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "guardrail-batching"]


def test_the_event_loop_of_a_guard_ends_with_it() -> None:
    gc.collect()
    for thread in batching_threads():
        thread.join(10.0)
    shared: Guard | None = guard(detector=Slow())
    assert shared is not None
    together(shared.check, TEXTS)
    (thread,) = batching_threads()
    del shared
    gc.collect()
    thread.join(10.0)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_an_event_loop_of_its_own() -> None:
    shared = guard(detector=Slow())
    together(shared.check, TEXTS)
    child = os.fork()
    if child == 0:
        outcomes = together(shared.check, TEXTS)
        os._exit(len(outcomes) - len(TEXTS))
    assert os.waitpid(child, 0)[1] == 0
