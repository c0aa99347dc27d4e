"""One flow on its way from request to request, with the time that its model calls took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import perf_counter
from typing import Any

from guardrail.engine.steps import Flow, ModelCall, Pause, Read, Release, Request, UnfinishedError
from guardrail.errors import PluginError
from guardrail.outcome import Outcome, Timings

__all__ = ["Run"]


class Run:
    """Advances a flow; ``request`` is what it asks for now, None once it has returned its ``outcome``
    or broken.

    With ``whole`` the text is there already and nobody waits for its pieces: the run reads and releases by
    itself, and stops at model calls only.
    """

    def __init__(self, flow: Flow, *, whole: str | None = None) -> None:
        self.outcome: Outcome | None = None
        self._flow = flow
        self._whole = None if whole is None else iter((whole,))
        self._spent = {"detect": 0.0, "rewrite": 0.0, "embed": 0.0, "verify": 0.0}
        self._started = perf_counter()
        self.request: Request | None = self._advance(lambda: next(flow))

    @property
    def call(self) -> ModelCall | None:
        """The model call that is asked for, if that is what the flow waits for."""
        return None if isinstance(self.request, (Read, Release)) else self.request

    def send(self, value: str | Pause | None) -> None:
        """Replies to a Read (a chunk, a pause, or None at the end of the text) or to a Release (None)."""
        self.request = self._advance(lambda: self._flow.send(value))

    def reply(self, value: Any, seconds: float) -> None:
        """Replies to a model call; a PluginError is thrown into the flow."""
        kind = type(self.request).__name__.lower()
        self._spent[kind] += seconds
        if isinstance(value, PluginError):
            self.request = self._advance(lambda: self._flow.throw(value))
        else:
            self.request = self._advance(lambda: self._flow.send(value))

    def end(self) -> None:
        """Ends a flow that has not returned: its outcome is that of the text released so far."""
        if self.request is not None:
            self.request = self._advance(lambda: self._flow.throw(UnfinishedError()))

    def result(self) -> Outcome:
        """The outcome of a flow that has returned."""
        assert self.outcome is not None
        return self.outcome

    def _advance(self, step: Callable[[], Request]) -> Request | None:
        try:
            request = step()
            if self._whole is not None:
                request = self._past_text(request, self._whole)
        except StopIteration as end:
            self._flow.close()
            timings = Timings(**self._spent, total=perf_counter() - self._started)
            self.outcome = replace(end.value, timings=timings)
            return None
        except BaseException:  # the flow broke: it cannot be asked for an outcome any more
            self.request = None
            raise
        return request

    def _past_text(self, request: Request, chunks: Iterator[str]) -> Request:
        while isinstance(request, (Read, Release)):
            # What is released is part of the outcome's text, so an unstreamed text needs no other ear.
            request = self._flow.send(next(chunks, None) if isinstance(request, Read) else None)
        return request
