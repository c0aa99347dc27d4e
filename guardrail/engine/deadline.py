"""Runs calls under a deadline that really returns, and opens a circuit when late calls pile up."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from guardrail.errors import DeadlineError
from guardrail.outcome import Failure

__all__ = ["Deadline", "Workers"]

T = TypeVar("T")
MAX_LATE = 2
MAX_ABANDONED = 8
"""Late calls that may run at a time, of all that were tried: no more threads are given to a dead model."""
RETRY_SECONDS = 1.0
"""How long an open circuit waits until it tries one call."""
LAST_SECONDS = 5.0
"""What calls that nobody waits for any more may take to end when the program ends."""


class Deadline:
    """Gives each call at most ``seconds``; None calls inline, without a thread.

    A thread cannot be stopped, so a late one is abandoned and its result dropped. While two abandoned calls
    still run the circuit is open: further calls fail at once instead of piling up. It closes as they return,
    or when a call that is tried after ``RETRY_SECONDS`` is answered: then they hang, but the model does not.
    With eight abandoned calls nothing is tried any more. ``failure`` is what an error says of whose call it
    was.
    """

    def __init__(self, seconds: float | None, *, name: str, failure: Failure | None = None) -> None:
        self.seconds = seconds
        self.name = name
        self._failure = failure
        self._abandoned = 0  # late calls that still run
        self._late = 0  # of these, the ones since the model last answered while the circuit was open
        self._retry_at = 0.0
        self._changed = threading.Condition()
        self._workers = Workers()

    def run(self, call: Callable[[], T]) -> T:
        """The call's result or exception; DeadlineError if it is late or the circuit is open."""
        if self.seconds is None:
            return call()
        is_trial = self._late >= MAX_LATE
        if is_trial and not self._may_try():
            raise DeadlineError(
                f"{self.name} is not called while {self._abandoned} earlier calls run past their deadline",
                reason=f"{self.name}_circuit_open",
                failure=self._failure,
            )
        result: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def job() -> None:
            try:
                result.put((call(), None))
            except BaseException as error:  # noqa: BLE001  # handed to the caller, who raises it
                result.put((None, error))

        worker = self._workers.take()
        worker.jobs.put(job)
        try:
            value, error = result.get(timeout=self.seconds)
        except Empty:
            self._abandon(worker, result)
            raise self.missed() from None
        self._workers.give_back(worker)
        if is_trial:
            with self._changed:
                self._late = 0
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]  # the queue carries any type, this call's is T

    def wait_until_ready(self) -> None:
        """Waits while the circuit is open, if it will try a call: for who has many texts and loses none."""
        with self._changed:
            while self._late >= MAX_LATE and self._abandoned < MAX_ABANDONED:
                if (left := self._retry_at - monotonic()) <= 0:
                    return
                self._changed.wait(left)

    def _may_try(self) -> bool:
        """True for one caller each time that the circuit has waited long enough."""
        with self._changed:
            now = monotonic()
            if self._abandoned >= MAX_ABANDONED or now < self._retry_at:
                return False
            self._retry_at = now + (self.seconds or 0.0) + RETRY_SECONDS
            return True

    def missed(self) -> DeadlineError:
        """What is raised if a call is late."""
        return DeadlineError(
            f"{self.name} did not answer within {self.seconds} s",
            reason=f"{self.name}_deadline",
            failure=self._failure,
        )

    def _abandon(self, worker: Worker, result: SimpleQueue[Any]) -> None:
        with self._changed:
            self._abandoned += 1
            self._late += 1
            self._retry_at = monotonic() + RETRY_SECONDS

        def returned() -> None:
            result.get()
            with self._changed:
                self._abandoned -= 1
                self._late = max(0, self._late - 1)
                self._changed.notify_all()

        # The worker runs this after the late call, so the count falls exactly when the call has ended.
        worker.jobs.put(returned)
        worker.jobs.put(None)


class Worker(threading.Thread):
    """Runs one job after another until it is given None."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="guardrail")
        self.jobs: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        """Jobs must not raise."""
        while (job := self.jobs.get()) is not None:
            job()
            del job  # an idle worker keeps no text alive

    def interrupt(self) -> None:
        """Ends the thread: now if it has nothing to do, else as soon as its call is back in Python code."""
        import ctypes

        self.jobs.put(None)
        # The interpreter raises it in that thread; a thread that ends with SystemExit says nothing of it.
        raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
        raise_in(ctypes.c_ulong(self.ident or 0), ctypes.py_object(SystemExit))


class Workers:
    """Threads that are used again: as many as there are jobs at a time, and they end with this object.

    There is no lock, which a child forked at the wrong moment would find held for ever: a list's methods are
    atomic.
    """

    def __init__(self) -> None:
        self._idle: list[Worker] = []
        weakref.finalize(self, _dismiss, self._idle)

    def start(self, job: Callable[[], object]) -> None:
        """Runs a job, which must not raise, in a thread and does not wait for it."""
        worker = self.take()

        def run() -> None:
            job()
            self.give_back(worker)

        worker.jobs.put(run)

    def take(self) -> Worker:
        """A thread that has nothing to do."""
        with suppress(IndexError):
            while True:
                # In a forked child the parent's threads exist by name only.
                if (worker := self._idle.pop()).is_alive():
                    return worker
        return Worker()

    def give_back(self, worker: Worker) -> None:
        """Takes a thread back that has nothing more to do."""
        self._idle.append(worker)


def _dismiss(idle: list[Worker]) -> None:
    for worker in idle:
        worker.jobs.put(None)


@atexit.register
def _end_workers() -> None:
    """Has all workers end before the interpreter does, those too that another thread starts meanwhile.

    A thread that is inside a C++ library, as in the middle of a rewrite, when the interpreter ends is
    unwound by force, and the library aborts the process: a rewrite takes longer than anybody waits for it,
    so ``interrupt`` is needed (a test ends a program in the middle of one).
    """
    until = monotonic() + LAST_SECONDS
    interrupted: set[Worker] = set()
    while workers := [thread for thread in threading.enumerate() if isinstance(thread, Worker)]:
        for worker in workers:
            if worker not in interrupted:
                interrupted.add(worker)
                worker.interrupt()
        if (left := until - monotonic()) <= 0:
            return
        workers[0].join(min(left, 0.05))
