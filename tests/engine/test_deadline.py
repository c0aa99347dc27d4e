"""Deadlines return, late calls are counted, the circuit opens at two and closes when they end."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from functools import partial

import pytest

from guardrail.engine.deadline import Deadline
from guardrail.errors import DeadlineError
from tests.waiting import PATIENCE


def test_a_call_in_time_gives_its_result() -> None:
    assert Deadline(PATIENCE, name="model").run(lambda: 7) == 7


def test_a_call_without_deadline_runs_in_the_same_thread() -> None:
    assert Deadline(None, name="model").run(threading.get_ident) == threading.get_ident()


def test_an_exception_reaches_the_caller_as_it_was_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        Deadline(PATIENCE, name="model").run(lambda: 1 // 0)


def test_a_late_call_returns_at_its_deadline() -> None:
    release = threading.Event()
    with pytest.raises(DeadlineError) as caught:
        Deadline(0.05, name="model").run(partial(release.wait, PATIENCE))
    assert caught.value.reason == "model_deadline"
    release.set()


def test_the_circuit_opens_after_two_late_calls_and_closes_when_they_return() -> None:
    release = threading.Event()
    deadline = Deadline(0.02, name="model")
    for _ in range(2):
        with pytest.raises(DeadlineError, match="did not answer"):
            deadline.run(release.wait)
    with pytest.raises(DeadlineError) as caught:
        deadline.run(lambda: 1)
    assert caught.value.reason == "model_circuit_open"
    release.set()
    patience = Deadline(PATIENCE, name="test")
    assert patience.run(lambda: _first_success(deadline)) == 1


def test_an_open_circuit_tries_one_call_and_closes_if_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardrail.engine.deadline.RETRY_SECONDS", 0.02)
    release, deadline = threading.Event(), Deadline(0.5, name="model")
    for _ in range(2):
        with pytest.raises(DeadlineError):
            deadline.run(release.wait)
    deadline.wait_until_ready()
    assert [deadline.run(lambda: 1) for _ in range(3)] == [1, 1, 1]
    release.set()


def test_nothing_is_tried_any_more_while_eight_calls_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardrail.engine.deadline.RETRY_SECONDS", 0.001)
    release, deadline = threading.Event(), Deadline(0.02, name="model")
    reasons = []
    for _ in range(9):
        deadline.wait_until_ready()
        with pytest.raises(DeadlineError) as caught:
            deadline.run(release.wait)
        reasons.append(caught.value.reason)
    assert reasons == ["model_deadline"] * 8 + ["model_circuit_open"]
    release.set()


def _first_success(deadline: Deadline) -> int:
    while True:
        try:
            return deadline.run(lambda: 1)
        except DeadlineError:
            continue


def test_concurrent_calls_do_not_wait_for_each_other() -> None:
    deadline = Deadline(PATIENCE, name="model")
    both = threading.Barrier(2, timeout=PATIENCE)
    other = threading.Thread(target=lambda: deadline.run(both.wait))
    other.start()
    deadline.run(both.wait)
    other.join()


def test_a_worker_is_used_again_and_ends_with_its_deadline() -> None:
    deadline = Deadline(PATIENCE, name="model")
    workers = {deadline.run(threading.current_thread) for _ in range(5)}
    assert len(workers) == 1
    del deadline
    gc.collect()
    (worker,) = workers
    worker.join(PATIENCE)
    assert not worker.is_alive()


def ends(script: str) -> tuple[int, str]:
    """Status and stderr of a program."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    return done.returncode, done.stderr


LATE = """
import queue, time
from guardrail.engine import deadline
from guardrail.errors import DeadlineError
deadline.LAST_SECONDS = {seconds}
def busy():
    while True:
        time.sleep(0.001)
for call in {calls}:
    try:
        deadline.Deadline(0.01, name="model").run(call)
    except DeadlineError:
        pass
"""


def test_a_program_ends_although_late_calls_never_would() -> None:
    assert ends(LATE.format(calls="(busy, busy)", seconds=600)) == (0, "")


def test_a_call_that_cannot_be_interrupted_does_not_keep_a_program_from_ending() -> None:
    assert ends(LATE.format(calls="(busy, queue.SimpleQueue().get)", seconds=0.01)) == (0, "")


@pytest.mark.base
@pytest.mark.parametrize("check", ["guard.check(text)", "asyncio.run(guard.acheck(text))"])
def test_a_program_ends_in_order_in_the_middle_of_a_rewrite(check: str) -> None:
    script = f"""
import asyncio
from guardrail import Guard, Policy
guard = Guard(policy=Policy(rewrite_timeout=0.02))
guard.load()
text = "You are a stupid idiot and everybody hates you, you worthless piece of garbage."
assert {check}.degraded == ("rewriter_deadline",)
"""
    assert ends(script) == (0, "")
