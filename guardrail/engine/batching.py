"""Concurrent coroutines share model calls."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from guardrail.engine.calls import Calls
from guardrail.engine.deadline import Deadline, Workers
from guardrail.engine.sharing import answer_together, fits, kind_of
from guardrail.engine.steps import ModelCall, Rewrite
from guardrail.errors import PluginError
from guardrail.policy import Policy
from guardrail.tracebacks import debugging

__all__ = ["Batcher"]

AT_ONCE = 2
"""Model calls of one kind that run at a time: while one hangs until its deadline the other goes on."""
AT_ONCE_REWRITE = 1
"""A base model serves one batch after the other: a second would spend its deadline waiting for the first."""


class Batcher:
    """Answers the model calls of many coroutines with few model calls, in threads of its own.

    Calls of one kind go to the model together, at most ``Policy.batch`` texts: as soon as that many wait, as
    soon as every open text of the event loop waits for a model, and at the latest ``Policy.batch_wait``
    milliseconds after the first of them was asked for, or once a model is free. At most ``Policy.queue``
    texts of a kind wait for that; further callers are held back at the door, in order.

    The policy's deadlines count from the moment of asking, so they include door and queue; only loading the
    rewriter does not count. Who is late or cancelled leaves, and the companions get their replies all the
    same. Nothing is ever released because a wait was over.

    Each event loop has queues of its own, so one batcher serves any number of loops, one after another or in
    several threads. After a fork the child starts its own threads.
    """

    def __init__(self, calls: Calls, policy: Policy) -> None:
        self._calls = calls
        self._policy = policy
        self._workers = Workers()
        self._lock = threading.Lock()
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}

    @contextlib.contextmanager
    def text(self) -> Iterator[None]:
        """Around all calls for one text: while texts are open, calls may wait for companions."""
        loop = self._here()
        loop.texts += 1
        try:
            yield
        finally:
            loop.texts -= 1
            loop.look()  # the others may have been waiting for this one only

    async def answer(self, call: ModelCall) -> Any:
        """The reply to a call; a PluginError stands in its place where the model failed or is late."""
        if isinstance(call, Rewrite) and not self._calls.is_open:
            try:
                await asyncio.to_thread(self._calls.open)
            except PluginError as error:
                return error
        return await self._here().ask(call)

    def _here(self) -> _Loop:
        running = asyncio.get_running_loop()
        found = self._loops.get(running)
        if found is None:
            with self._lock:
                self._loops = {loop: state for loop, state in self._loops.items() if not loop.is_closed()}
                found = self._loops[running] = _Loop(running, self._calls, self._policy, self._workers)
        return found


@dataclass(slots=True, eq=False)
class _Asked:
    """One call that waits since a time of its event loop's clock."""

    call: ModelCall
    reply: asyncio.Future[Any]
    since: float


@dataclass(slots=True, eq=False)
class _Lane:
    """The calls of one kind: those held back at the door, those that wait for the model, those with it."""

    at_once: int
    door: deque[_Asked] = field(default_factory=deque)
    queue: deque[_Asked] = field(default_factory=deque)
    texts: int = 0  # in the queue
    running: int = 0

    def admit(self, most: int) -> None:
        """Lets callers in while the queue has room for their texts; those who have left are forgotten."""
        self.queue = deque(asked for asked in self.queue if not asked.reply.done())
        self.texts = sum(len(asked.call.texts) for asked in self.queue)
        while self.door:
            asked = self.door[0]
            if not asked.reply.done():
                if self.queue and self.texts + len(asked.call.texts) > most:
                    return
                self.queue.append(asked)
                self.texts += len(asked.call.texts)
            self.door.popleft()

    def take(self, batch: int) -> list[_Asked]:
        """The next calls from the queue, as many as one model call may answer."""
        group: list[_Asked] = []
        while self.queue and fits([asked.call for asked in group], self.queue[0].call, batch=batch):
            group.append(self.queue.popleft())
            self.texts -= len(group[-1].call.texts)
        return group


class _Loop:
    """The lanes of one event loop; nothing but ``_work`` runs in another thread than the loop's."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, calls: Calls, policy: Policy, workers: Workers
    ) -> None:
        self.texts = 0
        self._loop = loop
        self._calls = calls
        self._policy = policy
        self._workers = workers
        self._lanes: dict[object, _Lane] = {}
        self._looking = False
        self._alarm: asyncio.TimerHandle | None = None

    async def ask(self, call: ModelCall) -> Any:
        asked = _Asked(call, self._loop.create_future(), self._loop.time())
        self._lane(call).door.append(asked)
        self.look()
        deadline = self._calls.deadline(call)
        if deadline is None or deadline.seconds is None:
            return await asked.reply
        timer = self._loop.call_later(deadline.seconds, _expire, asked.reply, deadline)
        try:
            return await asked.reply
        finally:
            timer.cancel()

    def look(self) -> None:
        """Has the lanes looked at once all coroutines that can run now have run."""
        if not self._looking:
            self._looking = True
            self._loop.call_soon(self._look)

    def _lane(self, call: ModelCall) -> _Lane:
        kind = kind_of(call)
        if kind not in self._lanes:
            self._lanes[kind] = _Lane(AT_ONCE_REWRITE if isinstance(call, Rewrite) else AT_ONCE)
        return self._lanes[kind]

    def _look(self) -> None:
        """Sends what may go to the models, and sets the alarm for what waits for companions."""
        self._looking = False
        for lane in self._lanes.values():
            lane.admit(self._policy.queue)
        all_wait = sum(len(lane.queue) + len(lane.door) for lane in self._lanes.values()) >= self.texts
        wait = 0.0 if all_wait else self._policy.batch_wait / 1000
        now, alarm = self._loop.time(), None
        for lane in self._lanes.values():
            while lane.queue and lane.running < lane.at_once:
                due = lane.queue[0].since + wait
                if due > now and lane.texts < self._policy.batch:
                    alarm = min(due, alarm or due)
                    break
                self._start(lane)
        self._set_alarm(alarm)

    def _set_alarm(self, at: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if at is None else self._loop.call_at(at, self._look)

    def _start(self, lane: _Lane) -> None:
        group = lane.take(self._policy.batch)
        lane.running += 1
        lane.admit(self._policy.queue)
        self._workers.start(partial(self._work, lane, group))

    def _work(self, lane: _Lane, group: Sequence[_Asked]) -> None:
        """In a thread: one model call for all."""
        replies: list[Any] = []
        failure: BaseException | None = None
        try:
            replies = answer_together(self._calls, [asked.call for asked in group])
        except BaseException as error:  # noqa: BLE001  # handed to the callers, who raise it
            failure = error if debugging() else error.with_traceback(None)
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            self._loop.call_soon_threadsafe(self._deliver, lane, group, replies, failure)

    def _deliver(
        self, lane: _Lane, group: Sequence[_Asked], replies: Sequence[Any], failure: BaseException | None
    ) -> None:
        lane.running -= 1
        for i, asked in enumerate(group):
            if asked.reply.done():
                continue
            if failure is None:
                asked.reply.set_result(replies[i])
            else:
                asked.reply.set_exception(failure)
        self.look()


def _expire(reply: asyncio.Future[Any], deadline: Deadline) -> None:
    if not reply.done():
        reply.set_result(deadline.missed())
