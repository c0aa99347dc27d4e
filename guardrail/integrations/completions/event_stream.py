"""What streams of events have in common: how they are read, and what ends them early."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable

import anyio

from guardrail.errors import FailureError
from guardrail.integrations.completions.completion import error_in, holds_no_text
from guardrail.integrations.completions.stream import AnsweredError
from guardrail.integrations.completions.voice import Emit
from guardrail.integrations.strict_json import JsonObject, MalformedError

__all__ = ["EventStream", "OnBlocked"]

OnBlocked = Callable[[], object]

_OVER = object()


class EventStream:
    """One streamed answer: events in, moderated events out. ``write`` gets one at a time.

    ``is_over`` is true once the answer said so itself. ``on_blocked`` is called once where a segment is
    blocked, before the refusal is written; what it raises comes in place of that.
    """

    def __init__(self, write: Emit, *, on_blocked: OnBlocked | None = None) -> None:
        self.is_over = False
        self._write = write
        self._on_blocked = on_blocked or (lambda: None)

    async def run(self, events: AsyncIterable[object], *, deadline: float = math.inf) -> None:
        """Reads the events and writes what may be shown of them.

        Whatever ends them early is raised behind the text that is clean so far: what the events raised,
        MalformedError for one that cannot be read, AnsweredError for one that is an error, TimeoutError at
        the ``deadline``, a time of anyio's clock. FailureError: the guard cannot work.
        """
        source = aiter(events)
        try:
            while not self.is_over:
                with anyio.CancelScope(deadline=deadline) as reading:
                    event = await anext(source, _OVER)
                if reading.cancelled_caught:
                    raise TimeoutError
                if event is _OVER:
                    break
                await self.take(event)
            if not self.is_over:
                await self.break_off()
        except FailureError:
            raise
        except Exception:
            await self.break_off()
            raise
        finally:
            await self.close()

    async def take(self, event: object) -> None:
        """Takes up one event, and writes what may be shown now."""
        if event is None or holds_no_text(event):
            return
        if not isinstance(event, dict):
            raise MalformedError("not a JSON object")
        if event.get("type") == "error":
            raise AnsweredError(event.get("error") or event)
        if isinstance(event.get("type"), str):
            await self._take(event)
        elif (error := error_in(event)) is not None:
            raise AnsweredError(error)

    async def _take(self, event: JsonObject) -> None:
        raise NotImplementedError

    async def break_off(self) -> None:
        """No more can be read: the text so far is moderated and written."""
        raise NotImplementedError

    async def close(self) -> None:
        """Drops what was not written."""
        raise NotImplementedError
