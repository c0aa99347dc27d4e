"""Drives flows over texts that are there as a whole: one, one without blocking, many in lock-step."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from guardrail.engine.calls import Calls
from guardrail.engine.run import Run
from guardrail.engine.sharing import answer_together, batches
from guardrail.engine.steps import Flow, ModelCall, Steps
from guardrail.engine.threads import ThreadBatcher
from guardrail.errors import DeadlineError
from guardrail.outcome import Outcome

if TYPE_CHECKING:
    from guardrail.engine.batching import Batcher

__all__ = ["adrive", "answered", "drive", "drive_many"]

T = TypeVar("T")


def answered(steps: Steps[T], calls: Calls) -> T:
    """The result of steps that ask for nothing but model calls; a PluginError is raised."""
    reply: Any = None
    while True:
        try:
            request = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        assert isinstance(request, ModelCall)
        reply = calls.answer(request)


def drive(flow: Flow, text: str, batcher: ThreadBatcher) -> Outcome:
    """The outcome of one text; model calls are shared with other threads, where there are any."""
    run = Run(flow, whole=text)
    while (call := run.call) is not None:
        started = perf_counter()
        run.reply(batcher.answer(call), perf_counter() - started)
    return run.result()


async def adrive(flow: Flow, text: str, batcher: Batcher) -> Outcome:
    """The same without blocking the event loop; model calls are shared with other coroutines."""
    with batcher.text():
        run = Run(flow, whole=text)
        while (call := run.call) is not None:
            started = perf_counter()
            run.reply(await batcher.answer(call), perf_counter() - started)
    return run.result()


def drive_many(flows: Sequence[Flow], texts: Sequence[str], calls: Calls, *, batch: int) -> list[Outcome]:
    """Outcomes in order, all flows advanced in lock-step so that one model call serves many of them."""
    runs = [Run(flow, whole=text) for flow, text in zip(flows, texts, strict=True)]
    while asked := [(run, run.call) for run in runs if run.call is not None]:
        for group in batches(asked, batch):
            started = perf_counter()
            replies = _answers(calls, [call for _, call in group])
            seconds = (perf_counter() - started) / len(group)
            for (run, _), reply in zip(group, replies, strict=True):
                run.reply(reply, seconds)
    return [run.result() for run in runs]


def _answers(calls: Calls, pending: Sequence[ModelCall]) -> list[Any]:
    """One reply per call; where a shared call is late each gets one of its own, so that one text is late."""
    calls.wait_until_ready(pending[0])
    replies = answer_together(calls, pending)
    if len(pending) > 1 and all(isinstance(reply, DeadlineError) for reply in replies):
        return [reply for call in pending for reply in _answers(calls, [call])]
    return replies
