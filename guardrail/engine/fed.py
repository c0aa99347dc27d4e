"""Drives a flow over a text that is handed in piece by piece: streams whose chunks hold more than text."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from time import perf_counter
from typing import TYPE_CHECKING, Any

from guardrail.engine.run import Run
from guardrail.engine.steps import Flow, ModelCall, Read, Release
from guardrail.engine.threads import ThreadBatcher
from guardrail.outcome import Edit, Outcome

if TYPE_CHECKING:
    from guardrail.engine.batching import Batcher

__all__ = ["AsyncFed", "Fed"]

Note = Callable[[Edit], object]


class Fed:
    """One text. ``push`` takes a piece, None at its end, and gives what may be shown now.

    ``settle`` is told the outcome once, behind the last piece; ``note`` each edit before its text is given.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        batcher: ThreadBatcher,
        settle: Callable[[Outcome], object],
        note: Note | None = None,
    ) -> None:
        self._run = Run(flow)
        self._batcher = batcher
        self._settle = settle
        self._note = note
        self._is_open = True

    @property
    def outcome(self) -> Outcome | None:
        """None until the text is over."""
        return self._run.outcome

    def push(self, text: str | None) -> Generator[str, None, None]:
        """What may be shown once this piece has come; nothing behind a refusal."""
        steps = _steps(self._run, text)
        for step in steps:
            if not isinstance(step, Release):
                started = perf_counter()
                self._run.reply(self._batcher.answer(step), perf_counter() - started)
                continue
            if self._note is not None and step.edit is not None:
                self._note(step.edit)
            yield step.text
            self._run.send(None)
        if self._run.outcome is not None:
            self.close()

    def close(self) -> None:
        """Ends the text, where it is not over."""
        self._run.end()
        if self._is_open and self._run.outcome is not None:
            self._is_open = False
            self._settle(self._run.outcome)


class AsyncFed:
    """The same without blocking the event loop."""

    def __init__(
        self,
        flow: Flow,
        *,
        batcher: Batcher,
        settle: Callable[[Outcome], Awaitable[object]],
        note: Note | None = None,
    ) -> None:
        self._run = Run(flow)
        self._batcher = batcher
        self._settle = settle
        self._note = note
        self._is_open = True

    @property
    def outcome(self) -> Outcome | None:
        """None until the text is over."""
        return self._run.outcome

    async def push(self, text: str | None) -> AsyncGenerator[str, None]:
        """What may be shown once this piece has come; nothing behind a refusal."""
        import asyncio

        for step in _steps(self._run, text):
            if not isinstance(step, Release):
                started = perf_counter()
                with self._batcher.text():
                    reply: Any = await self._batcher.answer(step)
                self._run.reply(reply, perf_counter() - started)
                continue
            if self._note is not None and step.edit is not None:
                await asyncio.to_thread(self._note, step.edit)
            yield step.text
            self._run.send(None)
        if self._run.outcome is not None:
            await self.close()

    async def close(self) -> None:
        """Ends the text, where it is not over."""
        self._run.end()
        if self._is_open and self._run.outcome is not None:
            self._is_open = False
            await self._settle(self._run.outcome)


def _steps(run: Run, text: str | None) -> Generator[ModelCall | Release, None, None]:
    """What the flow asks for until it wants the next piece; the caller replies to the run."""
    if isinstance(run.request, Read):
        run.send(text)
    while (request := run.request) is not None and not isinstance(request, Read):
        yield request
