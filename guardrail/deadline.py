"""Runs calls under a deadline that really returns, and opens a circuit when late calls pile up."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from guardrail.errors import DeadlineError

__all__ = ["Deadline"]

T = TypeVar("T")
MOST_LATE = 2
Job = tuple[Callable[[], Any], "SimpleQueue[tuple[Any, BaseException | None]]"]


class Deadline:
    """Gives each call at most ``seconds``; None calls inline, without a thread.

    A thread cannot be stopped, so a late one is abandoned and its result dropped. While two abandoned calls
    still run the circuit is open: further calls fail at once instead of piling up. It closes as they return.
    """

    def __init__(self, seconds: float | None, *, name: str) -> None:
        self.seconds = seconds
        self.name = name
        self._late = 0
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        weakref.finalize(self, _dismiss, self._idle)

    def run(self, call: Callable[[], T]) -> T:
        """The call's result or exception; DeadlineError where it is late or the circuit is open."""
        if self.seconds is None:
            return call()
        if self._late >= MOST_LATE:
            raise DeadlineError(
                f"{self.name} is not called while {self._late} earlier calls run past their deadline",
                reason=f"{self.name}_circuit_open",
            )
        worker = self._worker()
        result: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        worker.jobs.put((call, result))
        try:
            value, error = result.get(timeout=self.seconds)
        except Empty:
            self._abandon(worker, result)
            raise DeadlineError(
                f"{self.name} did not answer within {self.seconds} s", reason=f"{self.name}_deadline"
            ) from None
        with self._lock:
            self._idle.append(worker)
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return]  # the queue carries any type, this call's is T

    def _worker(self) -> _Worker:
        with self._lock:
            while self._idle:
                # In a forked child the parent's threads exist by name only.
                if (worker := self._idle.pop()).is_alive():
                    return worker
        return _Worker()

    def _abandon(self, worker: _Worker, result: SimpleQueue[Any]) -> None:
        with self._lock:
            self._late += 1

        def returned() -> None:
            result.get()
            with self._lock:
                self._late -= 1

        # The worker runs this after the late call, so the count falls exactly when the call has ended.
        worker.jobs.put((returned, SimpleQueue()))
        worker.jobs.put(None)


class _Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True, name="guardrail-deadline")
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while (job := self.jobs.get()) is not None:
            call, result = job
            try:
                result.put((call(), None))
            except BaseException as error:  # noqa: BLE001  # handed to the caller, who raises it
                result.put((None, error))
            del job, call, result  # an idle worker keeps no text alive


def _dismiss(idle: list[_Worker]) -> None:
    for worker in idle:
        worker.jobs.put(None)
