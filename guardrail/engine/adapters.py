"""Guards behind ``await``, with or without an event loop, so that streams are written once.

``AsyncGuardAdapter`` asks from an event loop. ``SyncGuardAdapter`` never waits, so that ``run_sync`` can run
the same code without one.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from guardrail.engine.stream import AsyncPushStream, AsyncStream, PushStream, Stream
from guardrail.outcome import Outcome
from guardrail.policy import Policy

__all__ = [
    "AsyncGuardAdapter",
    "GuardAdapter",
    "PushedText",
    "SyncGuardAdapter",
    "TextModerator",
    "as_async",
    "at_once",
    "passed_on",
    "run_sync",
]

T = TypeVar("T")


class TextModerator(Protocol):
    """What moderates: a Guard."""

    @property
    def policy(self) -> Policy: ...

    def moderate(self, value: T, *, paths: Sequence[str] = ()) -> T: ...
    async def amoderate(self, value: T, *, paths: Sequence[str] = ()) -> T: ...
    def defer(self, work: Callable[[], object]) -> None: ...
    def inline(self) -> TextModerator: ...
    def stream(self, chunks: Iterable[str]) -> Stream: ...
    def astream(self, chunks: AsyncIterable[str] | Iterable[str]) -> AsyncStream: ...
    def push_stream(self) -> PushStream: ...
    def apush_stream(self) -> AsyncPushStream: ...


class TextStream(Protocol):
    """What may be shown of one text."""

    @property
    def outcome(self) -> Outcome | None: ...
    def __aiter__(self) -> AsyncIterator[str]: ...
    async def aclose(self) -> None: ...


class PushedText(Protocol):
    """A text that is handed in piece by piece."""

    @property
    def outcome(self) -> Outcome | None: ...
    def push(self, text: str | None) -> AsyncGenerator[str, None]: ...
    async def close(self) -> None: ...


class GuardAdapter(Protocol):
    """A guard, asked with ``await``."""

    @property
    def policy(self) -> Policy: ...

    async def moderate(self, value: T, *, paths: Sequence[str] = ()) -> T: ...
    def stream(self, chunks: AsyncGenerator[str, None]) -> TextStream: ...
    def push_stream(self) -> PushedText: ...
    def defer(self, steps: Steps) -> None: ...


Steps = Callable[[GuardAdapter], AsyncGenerator[Any, None]]
"""An answer on its way through a guard."""


class _Deferring:
    """Has an answer judged behind what was handed out, in monitor mode."""

    def __init__(self, guard: TextModerator) -> None:
        self._guard = guard
        self.policy = guard.policy

    def defer(self, steps: Steps) -> None:
        """Takes the steps later, in another thread; what they hand out is dropped."""
        self._guard.defer(partial(_taken, steps, SyncGuardAdapter(self._guard.inline())))


class AsyncGuardAdapter(_Deferring):
    """Asks a guard from an event loop, without blocking it."""

    async def moderate(self, value: T, *, paths: Sequence[str] = ()) -> T:
        """As Guard.moderate."""
        return await self._guard.amoderate(value, paths=paths)

    def stream(self, chunks: AsyncGenerator[str, None]) -> AsyncStream:
        """As Guard.astream."""
        return self._guard.astream(chunks)

    def push_stream(self) -> AsyncPushStream:
        """As Guard.apush_stream."""
        return self._guard.apush_stream()


class SyncGuardAdapter(_Deferring):
    """Asks a guard without an event loop: nothing that is awaited ever waits."""

    async def moderate(self, value: T, *, paths: Sequence[str] = ()) -> T:
        """As Guard.moderate."""
        return self._guard.moderate(value, paths=paths)

    def stream(self, chunks: AsyncGenerator[str, None]) -> _SyncStream:
        """As Guard.stream."""
        return _SyncStream(self._guard.stream(run_sync(chunks)))

    def push_stream(self) -> _SyncPushStream:
        """As Guard.push_stream."""
        return _SyncPushStream(self._guard.push_stream())


class _SyncStream:
    """A plain stream for ``async for``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def outcome(self) -> Outcome | None:
        return self._stream.outcome

    def __aiter__(self) -> AsyncIterator[str]:
        return as_async(self._stream)

    async def aclose(self) -> None:
        """Ends the stream."""
        self._stream.close()


class _SyncPushStream:
    """A plain fed text for ``async for``."""

    def __init__(self, text: PushStream) -> None:
        self._text = text

    @property
    def outcome(self) -> Outcome | None:
        return self._text.outcome

    def push(self, text: str | None) -> AsyncGenerator[str, None]:
        return as_async(self._text.push(text))

    async def close(self) -> None:
        self._text.close()


async def passed_on(
    chunks: AsyncIterator[T],
    adapter: GuardAdapter,
    judged: Callable[[AsyncIterator[T], GuardAdapter], AsyncGenerator[Any, None]],
) -> AsyncGenerator[T, None]:
    """The chunks as they come, in monitor mode. Behind their end, ``judged`` reads what was handed out."""
    seen: list[T] = []
    try:
        async for chunk in chunks:
            seen.append(chunk)
            yield chunk
            del chunk  # an error of the next one shows this frame
    finally:
        adapter.defer(lambda behind: judged(as_async(seen), behind))


def _taken(steps: Steps, adapter: GuardAdapter) -> None:
    for _ in run_sync(steps(adapter)):
        pass


def run_sync(steps: AsyncGenerator[T, None]) -> Iterator[T]:
    """An asynchronous generator that never waits, as a plain iterator."""
    try:
        while True:
            try:
                steps.__anext__().send(None)
            except StopIteration as step:
                yield step.value
            except StopAsyncIteration:
                return
            else:
                raise RuntimeError("a step waited for an event loop, and there is none")
    finally:
        with suppress(StopIteration):
            steps.aclose().send(None)


def at_once(waiting: Coroutine[Any, Any, T]) -> T:
    """What comes of a coroutine that never waits."""
    try:
        waiting.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        waiting.close()
    raise RuntimeError("a step waited for an event loop where there is none")


async def as_async(chunks: Iterable[T]) -> AsyncGenerator[T, None]:
    """A plain iterable for ``async for``."""
    for chunk in chunks:
        yield chunk
