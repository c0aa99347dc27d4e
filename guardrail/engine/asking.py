"""Asks a guard with ``await``, whether there is an event loop or not, so that streams are written once.

``Waiting`` asks from an event loop. ``AtOnce`` never waits, so that ``by_hand`` can run the same code
without one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

from guardrail.engine.fed import AsyncFed, Fed
from guardrail.engine.stream import AsyncStream, Stream
from guardrail.outcome import Outcome
from guardrail.policy import Policy

__all__ = ["Asker", "AtOnce", "Moderator", "Waiting", "by_hand", "stepped"]

T = TypeVar("T")


class Moderator(Protocol):
    """What moderates: a Guard."""

    @property
    def policy(self) -> Policy: ...

    def moderate(self, value: T, *, paths: Sequence[str] = ()) -> T: ...
    async def amoderate(self, value: T, *, paths: Sequence[str] = ()) -> T: ...
    def stream(self, chunks: Iterable[str]) -> Stream: ...
    def astream(self, chunks: AsyncIterable[str] | Iterable[str]) -> AsyncStream: ...
    def fed(self) -> Fed: ...
    def afed(self) -> AsyncFed: ...


class TextStream(Protocol):
    """What may be shown of one text."""

    @property
    def outcome(self) -> Outcome | None: ...
    def __aiter__(self) -> AsyncIterator[str]: ...
    async def aclose(self) -> None: ...


class FedText(Protocol):
    """A text that is handed in piece by piece."""

    @property
    def outcome(self) -> Outcome | None: ...
    def push(self, text: str | None) -> AsyncGenerator[str, None]: ...
    async def close(self) -> None: ...


class Asker(Protocol):
    """A guard, asked with ``await``."""

    @property
    def policy(self) -> Policy: ...

    async def moderate(self, value: T, *, paths: Sequence[str] = ()) -> T: ...
    def stream(self, chunks: AsyncGenerator[str, None]) -> TextStream: ...
    def fed(self) -> FedText: ...


class Waiting:
    """Asks a guard from an event loop, without blocking it."""

    def __init__(self, guard: Moderator) -> None:
        self._guard = guard
        self.policy = guard.policy

    async def moderate(self, value: T, *, paths: Sequence[str] = ()) -> T:
        """As Guard.moderate."""
        return await self._guard.amoderate(value, paths=paths)

    def stream(self, chunks: AsyncGenerator[str, None]) -> AsyncStream:
        """As Guard.astream."""
        return self._guard.astream(chunks)

    def fed(self) -> AsyncFed:
        """As Guard.afed."""
        return self._guard.afed()


class AtOnce:
    """Asks a guard where there is no event loop: nothing that is awaited ever waits."""

    def __init__(self, guard: Moderator) -> None:
        self._guard = guard
        self.policy = guard.policy

    async def moderate(self, value: T, *, paths: Sequence[str] = ()) -> T:
        """As Guard.moderate."""
        return self._guard.moderate(value, paths=paths)

    def stream(self, chunks: AsyncGenerator[str, None]) -> _Stepped:
        """As Guard.stream."""
        return _Stepped(self._guard.stream(by_hand(chunks)))

    def fed(self) -> _SteppedFed:
        """As Guard.fed."""
        return _SteppedFed(self._guard.fed())


class _Stepped:
    """A plain stream for ``async for``."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def outcome(self) -> Outcome | None:
        return self._stream.outcome

    def __aiter__(self) -> AsyncIterator[str]:
        return stepped(self._stream)

    async def aclose(self) -> None:
        """Ends the stream."""
        self._stream.close()


class _SteppedFed:
    """A plain fed text for ``async for``."""

    def __init__(self, text: Fed) -> None:
        self._text = text

    @property
    def outcome(self) -> Outcome | None:
        return self._text.outcome

    def push(self, text: str | None) -> AsyncGenerator[str, None]:
        return stepped(self._text.push(text))

    async def close(self) -> None:
        self._text.close()


def by_hand(steps: AsyncGenerator[T, None]) -> Iterator[T]:
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
                raise RuntimeError("a step waited for an event loop where there is none")
    finally:
        with suppress(StopIteration):
            steps.aclose().send(None)


async def stepped(chunks: Iterable[T]) -> AsyncGenerator[T, None]:
    """A plain iterable for ``async for``."""
    for chunk in chunks:
        yield chunk
