"""Plain threads share model calls where several want one at the same time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from guardrail.engine.calls import Calls
from guardrail.engine.sharing import answer_together, kind_of
from guardrail.engine.steps import ModelCall

if TYPE_CHECKING:
    import asyncio

    from guardrail.engine.batching import Batcher

__all__ = ["ThreadBatcher"]


class ThreadBatcher:
    """Answers the model calls of plain threads.

    A thread that is alone with its kind of call makes it by itself: no other thread is involved and nothing
    is waited for. Those that come while it does so join a Batcher, in an event loop that is started for them,
    and go to the model together as soon as it is free; deadlines and bounds are then the Batcher's.
    """

    def __init__(self, calls: Calls, batcher: Callable[[], Batcher]) -> None:
        self._calls = calls
        self._batcher = batcher
        self._lock = threading.Lock()
        self._alone: set[object] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def answer(self, call: ModelCall) -> Any:
        """The reply to a call; a PluginError stands in its place where the model failed or is late."""
        kind = kind_of(call)
        with self._lock:
            joins = kind in self._alone
            self._alone.add(kind)
        if joins:
            return self._answer_with_others(call)
        try:
            return answer_together(self._calls, [call])[0]
        finally:
            self._alone.discard(kind)

    def _answer_with_others(self, call: ModelCall) -> Any:
        import asyncio  # takes half as long as numpy; threads that are alone go without it

        reply = asyncio.run_coroutine_threadsafe(_asked(self._batcher(), call), self._running_loop())
        try:
            return reply.result()
        except BaseException:  # an interrupt of this thread, say: nobody waits for the reply any more
            reply.cancel()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._lock:
            # In a forked child the parent's thread exists by name only.
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_serve, args=(self._loop,), daemon=True, name="guardrail-batching"
                )
                self._thread.start()
                weakref.finalize(self, _stop, self._loop)
            return self._loop


async def _asked(batcher: Batcher, call: ModelCall) -> Any:
    with batcher.text():
        return await batcher.answer(call)


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    with suppress(RuntimeError):  # it was closed already
        loop.call_soon_threadsafe(loop.stop)
