"""Concurrent coroutines share model calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

from guardrail.engine.budget import Budget, current_budget
from guardrail.engine.deadline import Deadline, Workers
from guardrail.engine.runner import Runner, fits, kind_of
from guardrail.engine.steps import ModelCall, Rewrite
from guardrail.errors import debugging
from guardrail.policy import Policy

__all__ = ["MAX_CONCURRENT_CALLS", "Batcher", "QueueStatistics", "Statistics"]

MAX_CONCURRENT_CALLS = 2
"""Model calls of one kind that run at a time: while one hangs until its deadline, the other continues."""
MAX_CONCURRENT_REWRITES = 1
"""A base model serves one batch after the other: a second would spend its deadline waiting for the first."""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """The request queue of one kind of model call, over all event loops.

    ``waiting`` requests with ``waiting_texts`` texts wait for the model, ``backlog`` further ones until there
    is room in the queue; ``running`` model calls are being made. The one that waits longest has waited
    ``waited`` seconds. ``batch_sizes`` counts the calls that were
    made so far by their number of texts.
    """

    waiting: int = 0
    waiting_texts: int = 0
    backlog: int = 0
    running: int = 0
    waited: float = 0.0
    batch_sizes: Mapping[int, int] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Model calls made so far."""
        return sum(self.batch_sizes.values())

    @property
    def texts(self) -> int:
        """Texts in them."""
        return sum(size * calls for size, calls in self.batch_sizes.items())


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a batcher does now and has done so far.

    ``open_texts`` are being moderated in ``event_loops`` loops, of which a closed one is forgotten when the
    next one comes; ``queues`` has one entry for each place that was asked: "detector", "lexicon", "rewriter",
    "embedder", "verifier".
    """

    open_texts: int = 0
    event_loops: int = 0
    queues: Mapping[str, QueueStatistics] = field(default_factory=dict)


class Batcher:
    """Asks for many coroutines with few model calls, in threads of its own.

    Calls of one kind go to the model together, at most ``Policy.batch`` texts: as soon as that many wait, as
    soon as every open text of the event loop waits for a model, and at the latest ``Policy.batch_wait``
    milliseconds after the first of them was asked for, or once a model is free. At most ``Policy.queue``
    texts of a kind wait for that; further callers are held back in a backlog, in order.

    The policy's deadlines count from the moment of asking, so they include backlog and queue; only loading
    the rewriter does not count. Who is late or cancelled leaves, and the companions get their replies all the
    same. Nothing is ever released because a wait was over.

    Each event loop has queues of its own, so one batcher serves any number of loops, one after another or in
    several threads. After a fork the child starts its own threads.
    """

    def __init__(self, runner: Runner, policy: Policy) -> None:
        self._runner = runner
        self._policy = policy
        self._workers = Workers()
        self._lock = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        self._batch_sizes: dict[str, Counter[int]] = {}

    @contextlib.contextmanager
    def text(self) -> Iterator[None]:
        """Around all calls for one text: while texts are open, calls may wait for companions."""
        loop = self._here()
        loop.texts += 1
        try:
            yield
        finally:
            loop.texts -= 1
            loop.schedule_flush()  # the others may have been waiting for this one only

    async def ask(self, call: ModelCall) -> Any:
        """The reply to a call; a PluginError in its place if the plug-in failed or is late."""
        if isinstance(call, Rewrite) and not self._runner.is_open:
            failure = await asyncio.to_thread(self._runner.open)
            if failure is not None:
                return failure
        return await self._here().ask(call)

    async def ask_for_text(self, call: ModelCall) -> Any:
        """The same for a text that is open for this call alone."""
        with self.text():
            return await self.ask(call)

    def statistics(self) -> Statistics:
        """What waits and runs now, and the calls made so far; may be asked from any thread."""
        with self._lock:
            loops = list(self._loops.values())
            sizes = {place: dict(counts) for place, counts in self._batch_sizes.items()}
        queues = [queue for loop in loops for queue in list(loop.queues.values())]
        places = dict.fromkeys([*sizes, *(queue.place for queue in queues)])
        return Statistics(
            open_texts=sum(loop.texts for loop in loops),
            event_loops=len(loops),
            queues={
                place: _summed([queue for queue in queues if queue.place == place], sizes.get(place, {}))
                for place in places
            },
        )

    def count(self, place: str, texts: int) -> None:
        """Takes note of a model call that is made."""
        with self._lock:
            self._batch_sizes.setdefault(place, Counter())[texts] += 1

    def _here(self) -> _Loop:
        running = asyncio.get_running_loop()
        state = self._loops.get(running)
        if state is None:
            with self._lock:
                self._loops = {loop: state for loop, state in self._loops.items() if not loop.is_closed()}
                state = _Loop(running, self._runner, self._policy, self._workers, count=self.count)
                self._loops[running] = state
        return state


def _summed(queues: Sequence[_RequestQueue], batch_sizes: Mapping[int, int]) -> QueueStatistics:
    return QueueStatistics(
        waiting=sum(len(queue.waiting) for queue in queues),
        waiting_texts=sum(queue.texts for queue in queues),
        backlog=sum(len(queue.backlog) for queue in queues),
        running=sum(queue.running for queue in queues),
        waited=max((queue.waited() for queue in queues), default=0.0),
        batch_sizes=batch_sizes,
    )


@dataclass(slots=True, eq=False)
class _ModelRequest:
    """One call that waits since a time of its event loop's clock, and whom it is charged to."""

    call: ModelCall
    reply: asyncio.Future[Any]
    since: float
    budget: Budget | None = None


@dataclass(slots=True, eq=False)
class _RequestQueue:
    """The calls of one kind: those in the backlog, those that wait for the model, those with it."""

    place: str
    max_running: int
    backlog: deque[_ModelRequest] = field(default_factory=deque)
    waiting: deque[_ModelRequest] = field(default_factory=deque)
    texts: int = 0  # that wait
    running: int = 0

    def waited(self) -> float:
        """Seconds since the first of those that wait was asked for."""
        for queue in (self.waiting, self.backlog):
            with contextlib.suppress(IndexError):  # the loop may take it meanwhile
                request = queue[0]
                return max(0.0, request.reply.get_loop().time() - request.since)
        return 0.0

    def admit(self, max_texts: int) -> None:
        """Lets callers in while there is room for their texts; those who have left are forgotten."""
        self.waiting = deque(request for request in self.waiting if not request.reply.done())
        self.texts = sum(len(request.call.texts) for request in self.waiting)
        while self.backlog:
            request = self.backlog[0]
            if not request.reply.done():
                if self.waiting and self.texts + len(request.call.texts) > max_texts:
                    return
                self.waiting.append(request)
                self.texts += len(request.call.texts)
            self.backlog.popleft()

    def take(self, batch: int) -> list[_ModelRequest]:
        """The next calls, as many as one model call may answer."""
        group: list[_ModelRequest] = []
        while self.waiting and fits([one.call for one in group], self.waiting[0].call, batch=batch):
            group.append(self.waiting.popleft())
            self.texts -= len(group[-1].call.texts)
        return group


class _Loop:
    """The queues of one event loop; nothing but ``_work`` runs in another thread than the loop's."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        runner: Runner,
        policy: Policy,
        workers: Workers,
        *,
        count: Callable[[str, int], None],
    ) -> None:
        self.texts = 0
        self.queues: dict[object, _RequestQueue] = {}
        self._loop = loop
        self._runner = runner
        self._policy = policy
        self._workers = workers
        self._count = count
        self._flush_scheduled = False
        self._flush_timer: asyncio.TimerHandle | None = None

    async def ask(self, call: ModelCall) -> Any:
        budget = current_budget()
        if budget is not None:
            budget.require()
        request = _ModelRequest(call, self._loop.create_future(), self._loop.time(), budget)
        self._queue(call).backlog.append(request)
        self.schedule_flush()
        deadline = self._runner.place(call).deadline
        if deadline is None or deadline.seconds is None:
            return await request.reply
        timer = self._loop.call_later(deadline.seconds, _expire, request.reply, deadline)
        try:
            return await request.reply
        finally:
            timer.cancel()

    def schedule_flush(self) -> None:
        """Has the queues flushed once all coroutines that can run now have run."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _queue(self, call: ModelCall) -> _RequestQueue:
        kind = kind_of(call)
        if kind not in self.queues:
            max_running = MAX_CONCURRENT_REWRITES if isinstance(call, Rewrite) else MAX_CONCURRENT_CALLS
            self.queues[kind] = _RequestQueue(self._runner.place(call).plugin.place, max_running)
        return self.queues[kind]

    def _flush(self) -> None:
        """Sends what may go to the models, and sets the timer for what waits for companions."""
        self._flush_scheduled = False
        for queue in self.queues.values():
            queue.admit(self._policy.queue)
        asked = sum(len(queue.waiting) + len(queue.backlog) for queue in self.queues.values())
        wait = 0.0 if asked >= self.texts else self._policy.batch_wait / 1000
        now, next_flush = self._loop.time(), None
        for queue in self.queues.values():
            while queue.waiting and queue.running < queue.max_running:
                due = queue.waiting[0].since + wait
                if due > now and queue.texts < self._policy.batch:
                    next_flush = min(due, next_flush or due)
                    break
                self._start(queue)
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._flush_timer = None if next_flush is None else self._loop.call_at(next_flush, self._flush)

    def _start(self, queue: _RequestQueue) -> None:
        group = queue.take(self._policy.batch)
        queue.running += 1
        queue.admit(self._policy.queue)
        self._count(queue.place, sum(len(request.call.texts) for request in group))
        self._workers.start(partial(self._work, queue, group))

    def _work(self, queue: _RequestQueue, group: Sequence[_ModelRequest]) -> None:
        """In a thread: one model call for all."""
        replies: list[Any] = []
        failure: BaseException | None = None
        started = perf_counter()
        try:
            replies = self._runner.ask_together([request.call for request in group])
        except BaseException as error:  # noqa: BLE001  # handed to the callers, who raise it
            failure = error if debugging() else error.with_traceback(None)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            seconds = perf_counter() - started
            self._loop.call_soon_threadsafe(self._deliver, queue, group, replies, failure, seconds)

    def _deliver(
        self,
        queue: _RequestQueue,
        group: Sequence[_ModelRequest],
        replies: Sequence[Any],
        failure: BaseException | None,
        seconds: float,
    ) -> None:
        queue.running -= 1
        a_text = seconds / max(1, sum(len(request.call.texts) for request in group))
        for i, request in enumerate(group):
            if request.budget is not None:
                request.budget.charge(a_text * len(request.call.texts))
            if request.reply.done():
                continue
            if failure is None:
                request.reply.set_result(replies[i])
            else:
                request.reply.set_exception(failure)
        self.schedule_flush()


def _expire(reply: asyncio.Future[Any], deadline: Deadline) -> None:
    if not reply.done():
        reply.set_result(deadline.missed())
