"""Plain threads: alone they call models themselves, together they share calls; nobody harms another."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from guardrail import Guard, Outcome, Policy, Verdict
from guardrail.errors import ManifestError
from tests.fakes import WordDetector
from tests.streaming import CLEAN, INLINE, NEUTRAL, TOXIC, guard, timeless
from tests.waiting import PATIENCE, wait_until

TEXTS = [f"Number {n} is here. {TOXIC} {CLEAN}" for n in range(24)]


class Crowded(WordDetector):
    """Answers nobody until many have asked, however the machine schedules their threads.

    Many are there once a call holds, or more texts wait for the next one than, one text alone ever needs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.max_alone = 0
        self.waiting: Callable[[], int] | None = None

    def await_crowd(self, shared: Guard, policy: Policy) -> None:
        """From now on for the threads that ask this guard."""
        self.max_alone = max_alone(policy)
        self.waiting = lambda: sum(queue.waiting_texts for queue in shared.statistics().queues.values())

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        wait_until(lambda: self.is_crowded(texts))
        self.waiting = None
        return super().detect(texts)

    def is_crowded(self, texts: Sequence[str]) -> bool:
        """Whether many have asked."""
        waiting = self.waiting
        return waiting is None or max(len(texts), waiting()) > self.max_alone


def crowded(policy: Policy = INLINE, *, detector: Crowded | None = None) -> tuple[Guard, Crowded]:
    """A guard whose callers are sure to ask together, and its detector."""
    detector = detector or Crowded()
    shared = guard(policy, detector=detector)
    detector.await_crowd(shared, policy)
    return shared, detector


def together(check: Callable[[str], Any], texts: Sequence[str]) -> list[Any]:
    """What each of as many threads as texts gets; they start at the same time."""
    start = threading.Barrier(len(texts))

    def one(text: str) -> Any:
        start.wait(PATIENCE)
        return check(text)

    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(one, texts))


def max_alone(policy: Policy) -> int:
    """Texts in the largest call of the detector that one text needs."""
    detector = WordDetector()
    guard(policy, detector=detector).check(TEXTS[0])
    return max(map(len, detector.calls))


def test_a_thread_that_is_alone_calls_the_model_itself() -> None:
    called: set[threading.Thread] = set()

    def detect(texts: Sequence[str]) -> list[Verdict]:
        called.add(threading.current_thread())
        return WordDetector().detect(texts)

    before = own_threads()
    guard(detector=detect).check(TOXIC)
    assert called == {threading.current_thread()}
    assert own_threads() <= before, "no thread was started for it"


def own_threads() -> set[threading.Thread]:
    """Threads of this package, those of guards that await the garbage collector included."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("guardrail")}


@pytest.mark.parametrize("policy", [INLINE, Policy()])
def test_threads_that_ask_together_share_model_calls_and_get_their_own_outcomes(policy: Policy) -> None:
    alone = [timeless(guard(policy).check(text)) for text in TEXTS]
    shared, detector = crowded(policy)
    outcomes: list[Outcome] = together(shared.check, TEXTS)
    assert [timeless(outcome) for outcome in outcomes] == alone
    assert max(map(len, detector.calls)) > max_alone(policy), "one call for several of them"


def test_streams_in_threads_share_them_too() -> None:
    shared, detector = crowded()
    streamed = together(lambda text: "".join(shared.stream([text])), TEXTS)
    assert streamed == [text.replace(TOXIC, NEUTRAL) for text in TEXTS]
    assert max(map(len, detector.calls)) > max_alone(INLINE)


def test_a_model_that_hangs_keeps_no_thread_beyond_its_deadline() -> None:
    release = threading.Event()

    def hangs(texts: Sequence[str]) -> Any:
        release.wait(PATIENCE)
        raise RuntimeError

    outcomes: list[Outcome] = together(
        guard(replace(INLINE, detect_timeout=0.05), detector=hangs).check, TEXTS[:6]
    )
    release.set()
    reasons = {reason for outcome in outcomes for reason in outcome.degraded}
    assert reasons <= {"detector_deadline", "detector_circuit_open"}
    assert all(outcome.degraded for outcome in outcomes)


def test_one_text_that_breaks_the_detector_fails_alone() -> None:
    class Picky(Crowded):
        def detect(self, texts: Sequence[str]) -> list[Verdict]:
            verdicts = super().detect(texts)
            if any("Number 3 " in text for text in texts):
                raise ValueError
            return verdicts

    shared, _ = crowded(detector=Picky())
    outcomes: list[Outcome] = together(shared.check, TEXTS)
    assert [n for n, outcome in enumerate(outcomes) if outcome.degraded] == [3]


def test_a_broken_model_file_is_raised_in_every_thread() -> None:
    def altered(texts: Sequence[str]) -> Any:
        raise ManifestError("model.onnx was altered")

    broken = guard(detector=altered)

    def failure(text: str) -> str:
        with pytest.raises(ManifestError) as caught:
            broken.check(text)
        return str(caught.value)

    assert set(together(failure, TEXTS)) == {"model.onnx was altered"}


def test_the_event_loop_of_a_guard_ends_with_it() -> None:
    others = own_threads()
    shared, detector = crowded()
    together(shared.check, TEXTS)
    (thread,) = [one for one in own_threads() - others if one.name == "guardrail-batching"]
    del shared, detector
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_an_event_loop_of_its_own() -> None:
    shared, detector = crowded()
    together(shared.check, TEXTS)
    child = os.fork()
    if child == 0:
        signal.alarm(int(PATIENCE))  # a child that hangs is ended
        status = 1
        try:
            detector.await_crowd(shared, INLINE)
            status = len(together(shared.check, TEXTS)) - len(TEXTS)
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
