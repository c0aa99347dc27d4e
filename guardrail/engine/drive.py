"""Drives flows over texts that are there as a whole: one, one without blocking, many in lock-step.

Texts go to a model in small calls, each under its own deadline.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from guardrail.engine.contract import joined
from guardrail.engine.portions import Piece, merged, pieces, portions
from guardrail.engine.runner import Runner, batches
from guardrail.engine.steps import (
    Ask,
    Detect,
    Embed,
    Flow,
    ModelCall,
    Pause,
    Read,
    Release,
    Request,
    Rewrite,
    Steps,
    UnfinishedError,
    Verify,
)
from guardrail.errors import DeadlineError, PluginError
from guardrail.outcome import Outcome, Timings, Verdict
from guardrail.protocols import Embeddings

if TYPE_CHECKING:
    from guardrail.engine.batching import Batcher

__all__ = ["WINDOW", "FlowRun", "adrive", "complete", "detect_texts", "drive", "drive_many", "embed_texts"]

T = TypeVar("T")
WINDOW = 256
"""Flows advanced together by ``drive_many``: enough to fill model calls, few enough to bound memory."""


class FlowRun:
    """One flow on its way from request to request, with the time that its model calls took.

    ``request`` is what it asks for now, None once it has returned its ``outcome`` or broken; ``call`` is that
    request if it is a model call. With ``whole`` the text, or its pieces, is there already and nobody waits:
    the run reads and releases by itself, and stops at model calls only.
    """

    def __init__(self, flow: Flow, *, whole: str | Iterable[str | Pause] | None = None) -> None:
        self.outcome: Outcome | None = None
        self.request: Request | None = None
        self.call: ModelCall | None = None
        self._flow = flow
        self._whole = None if whole is None else iter((whole,) if isinstance(whole, str) else whole)
        self._seconds: dict[type[ModelCall], float] = dict.fromkeys((Detect, Rewrite, Embed, Verify), 0.0)
        self._started = perf_counter()
        self._advance(flow.send, None)

    def send(self, value: str | Pause | None) -> None:
        """Replies to a Read (a chunk, a pause, or None at the end of the text) or to a Release (None)."""
        self._advance(self._flow.send, value)

    def reply(self, value: Any, seconds: float) -> None:
        """Replies to a model call; a PluginError is thrown into the flow."""
        assert self.call is not None
        self._seconds[type(self.call)] += seconds
        self._advance(self._flow.throw if isinstance(value, PluginError) else self._flow.send, value)

    def end(self) -> None:
        """Ends a flow that has not returned: its outcome is that of the text released so far."""
        if self.request is not None:
            self._advance(self._flow.throw, UnfinishedError())

    def result(self) -> Outcome:
        """The outcome of a flow that has returned."""
        assert self.outcome is not None
        return self.outcome

    def _advance(self, step: Callable[[Any], Request], value: Any) -> None:
        self.request = self.call = None  # so that a flow that breaks is not asked for an outcome
        try:
            request = step(value)
            # What is released is part of the outcome's text, so an unstreamed text needs no callback.
            while self._whole is not None and isinstance(request, (Read, Release)):
                request = self._flow.send(next(self._whole, None) if isinstance(request, Read) else None)
        except StopIteration as end:
            self._flow.close()
            self.outcome = replace(end.value, timings=self._timings())
            return
        self.request = request
        self.call = None if isinstance(request, (Read, Release)) else request

    def _timings(self) -> Timings:
        return Timings(
            detect=self._seconds[Detect],
            rewrite=self._seconds[Rewrite],
            embed=self._seconds[Embed],
            verify=self._seconds[Verify],
            total=perf_counter() - self._started,
        )


def drive(flow: Flow, text: str | Iterable[str | Pause], ask: Ask) -> Outcome:
    """The outcome of one text, or of its pieces."""
    run = FlowRun(flow, whole=text)
    while (call := run.call) is not None:
        started = perf_counter()
        run.reply(ask(call), perf_counter() - started)
    return run.result()


async def adrive(flow: Flow, text: str, batcher: Batcher) -> Outcome:
    """The same without blocking the event loop; model calls are shared with other coroutines."""
    with batcher.text():
        run = FlowRun(flow, whole=text)
        while (call := run.call) is not None:
            started = perf_counter()
            run.reply(await batcher.ask(call), perf_counter() - started)
    return run.result()


def drive_many(flows: Sequence[Flow], texts: Sequence[str], runner: Runner, *, batch: int) -> list[Outcome]:
    """Outcomes in order, all flows advanced in lock-step so that one model call serves many of them."""
    runs = [FlowRun(flow, whole=text) for flow, text in zip(flows, texts, strict=True)]
    while asked := [(run, run.call) for run in runs if run.call is not None]:
        for group in batches(asked, batch):
            started = perf_counter()
            replies = _ask_each(runner, [call for _, call in group])
            seconds = (perf_counter() - started) / len(group)
            for (run, _), reply in zip(group, replies, strict=True):
                run.reply(reply, seconds)
    return [run.result() for run in runs]


def _ask_each(runner: Runner, calls: Sequence[ModelCall]) -> list[Any]:
    """One reply per call; if a shared call is late each gets one of its own, so that one text is late."""
    runner.wait_until_ready(calls[0])
    replies = runner.ask_together(calls)
    if len(calls) > 1 and all(isinstance(reply, DeadlineError) for reply in replies):
        return [reply for call in calls for reply in _ask_each(runner, [call])]
    return replies


def complete(steps: Steps[T], ask: Ask) -> T:
    """The result of steps that ask for nothing but model calls; a PluginError is raised."""
    reply: Any = None
    while True:
        try:
            request = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        assert isinstance(request, ModelCall)
        reply = _raised(ask(request))


def detect_texts(runner: Runner, texts: Sequence[str], *, batch: int) -> list[Verdict]:
    """One verdict per text of any length, as the detector decides."""
    return [merged(parts) for parts in _in_pieces(runner, texts, Detect, batch=batch)]


def embed_texts(runner: Runner, texts: Sequence[str], *, batch: int) -> Embeddings:
    """One row per text; that of a long text is the mean of its pieces by their lengths, at unit length."""
    if not texts:
        return np.asarray(_raised(runner.ask(Embed(()))))
    rows = [_mean(parts) for parts in _in_pieces(runner, texts, Embed, batch=batch)]
    return joined([row[None] for row in rows], by=runner.models.embed)


def _in_pieces(
    runner: Runner, texts: Sequence[str], kind: Callable[[tuple[str, ...]], ModelCall], *, batch: int
) -> Iterator[list[tuple[Piece, Any]]]:
    """For each text its pieces, each with the model's reply."""
    cut = [pieces(text) for text in texts]
    flat = [piece.text for of_text in cut for piece in of_text]
    calls = [kind(tuple(portion)) for portion in portions(flat, batch=batch)]
    replies = itertools.chain.from_iterable(_asked_when_ready(runner, call) for call in calls)
    for of_text in cut:
        yield [(piece, next(replies)) for piece in of_text]


def _asked_when_ready(runner: Runner, call: ModelCall) -> Any:
    runner.wait_until_ready(call)
    return _raised(runner.ask(call))


def _raised(reply: Any) -> Any:
    """The reply; raises the PluginError that stands in its place."""
    if isinstance(reply, PluginError):
        raise reply
    return reply


def _mean(parts: Sequence[tuple[Piece, Any]]) -> Any:
    if len(parts) == 1:
        return parts[0][1]
    lengths = np.array([len(piece.text) for piece, _ in parts], dtype=np.float32)
    mean = lengths @ np.stack([row for _, row in parts])
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)
