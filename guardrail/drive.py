"""Answers a flow's steps: the only place where sync and async differ.

Drivers answer and never decide: a plug-in's failure is thrown into the flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from guardrail.calls import Calls
from guardrail.errors import DeadlineError, PluginError
from guardrail.flow.steps import Detect, Flow, ModelCall, Read, Release, Request, Rewrite
from guardrail.outcome import Outcome, Timings

__all__ = ["adrive", "drive", "drive_many"]


class Run:
    """One flow with the text that it reads, advanced step by step."""

    def __init__(self, flow: Flow, text: str) -> None:
        self.outcome: Outcome | None = None
        self._flow = flow
        self._chunks = iter((text,))
        self._spent = {"detect": 0.0, "rewrite": 0.0, "embed": 0.0}
        self._started = perf_counter()
        self.call: ModelCall | None = self._advance(lambda: next(flow))

    def reply(self, value: Any, seconds: float) -> None:
        """Sends the reply to the pending call, or throws it if it is an exception."""
        assert self.call is not None
        kind = type(self.call).__name__.lower()
        self._spent[kind] += seconds
        if isinstance(value, PluginError):
            self.call = self._advance(lambda: self._flow.throw(value))
        else:
            self.call = self._advance(lambda: self._flow.send(value))

    def _advance(self, step: Callable[[], Request]) -> ModelCall | None:
        """Runs the flow up to its next model call; None once it has returned."""
        try:
            request = step()
            while isinstance(request, (Read, Release)):
                # What is released is part of the outcome's text, so an unstreamed text needs no other ear.
                request = self._flow.send(next(self._chunks, None) if isinstance(request, Read) else None)
        except StopIteration as end:
            self._flow.close()
            timings = Timings(**self._spent, total=perf_counter() - self._started)
            self.outcome = replace(end.value, timings=timings)
            return None
        return request


def drive(flow: Flow, text: str, calls: Calls) -> Outcome:
    """The outcome of one text; model calls run in this thread, or under the policy's deadlines."""
    run = Run(flow, text)
    while run.call is not None:
        run.reply(*_timed(calls, run.call))
    assert run.outcome is not None
    return run.outcome


async def adrive(flow: Flow, text: str, calls: Calls) -> Outcome:
    """The same, with model calls in a thread so that the event loop goes on."""
    run = Run(flow, text)
    while run.call is not None:
        run.reply(*await asyncio.to_thread(_timed, calls, run.call))
    assert run.outcome is not None
    return run.outcome


def drive_many(flows: Sequence[Flow], texts: Sequence[str], calls: Calls, *, batch: int) -> list[Outcome]:
    """Outcomes in order, all flows advanced in lock-step so that one model call serves many of them."""
    runs = [Run(flow, text) for flow, text in zip(flows, texts, strict=True)]
    while waiting := [run for run in runs if run.call is not None]:
        for group in _shared(waiting, batch):
            _answer_together(group, calls)
    return [run.outcome for run in runs if run.outcome is not None]


def _shared(runs: Sequence[Run], batch: int) -> Iterator[list[Run]]:
    """Groups of runs whose calls are of one kind, of at most ``batch`` texts unless one call has more."""
    kinds: dict[object, list[Run]] = {}
    for run in runs:
        assert run.call is not None
        detail = getattr(run.call, "lexicon", None), getattr(run.call, "n", None)
        kinds.setdefault((type(run.call), detail), []).append(run)
    for alike in kinds.values():
        group: list[Run] = []
        size = 0
        for run in alike:
            assert run.call is not None
            if group and size + len(run.call.texts) > batch:
                yield group
                group, size = [], 0
            group.append(run)
            size += len(run.call.texts)
        yield group


def _answer_together(runs: Sequence[Run], calls: Calls) -> None:
    """One model call for all; where it fails, each run gets its own, so that a bad text fails alone."""
    pending = [run.call for run in runs if run.call is not None]
    reply, seconds = _timed(calls, _merged(pending))
    if isinstance(reply, PluginError) and len(runs) > 1 and not isinstance(reply, DeadlineError):
        for run, call in zip(runs, pending, strict=True):
            run.reply(*_timed(calls, call))
        return
    start = 0
    for run, call in zip(runs, pending, strict=True):
        end = start + len(call.texts)
        run.reply(reply if isinstance(reply, PluginError) else reply[start:end], seconds / len(runs))
        start = end


def _merged(pending: Sequence[ModelCall]) -> ModelCall:
    texts = tuple(text for call in pending for text in call.texts)
    first = pending[0]
    if isinstance(first, Detect):
        return Detect(texts, first.lexicon)
    return Rewrite(texts, first.n) if isinstance(first, Rewrite) else type(first)(texts)


def _timed(calls: Calls, call: ModelCall) -> tuple[Any, float]:
    started = perf_counter()
    try:
        reply = calls.answer(call)
    except PluginError as error:
        reply = error
    return reply, perf_counter() - started
