"""Drives flows over texts that arrive in chunks: iterators of what may be shown, plain and asynchronous."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from guardrail.engine.run import Run
from guardrail.engine.steps import PAUSE, Flow, Pause, Read, Release
from guardrail.engine.threads import ThreadBatcher
from guardrail.errors import FailureError
from guardrail.outcome import Edit, Outcome
from guardrail.tracebacks import WithoutFrames

if TYPE_CHECKING:
    from guardrail.engine.batching import Batcher

__all__ = ["AsyncStream", "Stream"]

Chunks = TypeVar("Chunks")
Note = Callable[[Edit], object]


class Stream(Iterator[str]):
    """The pieces of a text that may be shown, each handed out as soon as it is judged; joined, they are
    ``outcome.text``.

    A chunk is pulled from the source only while nothing is ready to be shown. The stream ends with the
    source, behind a refusal, or early: by ``close``, at the end of a ``with`` block, by an exception of the
    source (which goes on to the caller), or when it is dropped. However it ends, the source is closed if it
    can be, what was not shown by then never is, and ``settle`` is told the outcome once. ``note`` is told
    each edit before its text is handed out; what it raises comes in place of the text.
    """

    def __init__(
        self,
        flow: Flow,
        chunks: Iterable[str],
        *,
        batcher: ThreadBatcher,
        settle: Callable[[Outcome], object],
        note: Note | None = None,
    ) -> None:
        self._source = iter(_require_chunks(chunks))
        self._run = Run(flow)
        # A generator that does not know the stream: a dropped stream then ends at once, without a cycle.
        self._pieces = _pieces(self._run, self._source, batcher, settle, note)

    @property
    def outcome(self) -> Outcome | None:
        """None until the stream has ended; then the text's outcome.

        Where the stream ended early it is that of the text shown by then, ``degraded`` by ``unfinished``.
        """
        return self._run.outcome

    def __next__(self) -> str:
        with WithoutFrames(FailureError):
            return next(self._pieces)

    def close(self) -> None:
        """Ends the stream, and closes its source."""
        self._pieces.close()
        _close(self._source)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream(AsyncIterator[str]):
    """The same for ``async for``; the source may be an asynchronous or a plain iterable.

    A plain one is read in the event loop: one that blocks belongs into a thread. A stream that is left by
    ``break`` is ended when the event loop gets to it; ``async with`` or ``aclose`` ends it there and then.
    """

    def __init__(
        self,
        flow: Flow,
        chunks: AsyncIterable[str] | Iterable[str],
        *,
        batcher: Batcher,
        settle: Callable[[Outcome], Awaitable[object]],
        note: Note | None = None,
    ) -> None:
        self._source = _Source(_require_chunks(chunks))
        self._run = Run(flow)
        self._pieces = _async_pieces(self._run, self._source, batcher, settle, note)

    @property
    def outcome(self) -> Outcome | None:
        """As for ``Stream``."""
        return self._run.outcome

    async def __anext__(self) -> str:
        with WithoutFrames(FailureError):
            return await anext(self._pieces)

    async def aclose(self) -> None:
        """Ends the stream, and closes its source."""
        await self._pieces.aclose()
        await self._source.close()

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _pieces(
    run: Run,
    source: Iterator[object],
    batcher: ThreadBatcher,
    settle: Callable[[Outcome], object],
    note: Note | None,
) -> Generator[str, None, None]:
    try:
        while (request := run.request) is not None:
            if isinstance(request, Read):
                run.send(_read(source))
            elif isinstance(request, Release):
                if note is not None and request.edit is not None:
                    note(request.edit)
                try:
                    yield request.text
                finally:  # handed out, even where the reader leaves here
                    run.send(None)
            else:
                started = perf_counter()
                run.reply(batcher.answer(request), perf_counter() - started)
    finally:
        try:
            _close(source)
        finally:
            run.end()
            if run.outcome is not None:
                settle(run.outcome)


async def _async_pieces(
    run: Run,
    source: _Source,
    batcher: Batcher,
    settle: Callable[[Outcome], Awaitable[object]],
    note: Note | None,
) -> AsyncGenerator[str, None]:
    import asyncio  # takes half as long as numpy; plain streams go without it

    try:
        with batcher.text():
            while (request := run.request) is not None:
                if isinstance(request, Read):
                    run.send(await source.read())
                elif isinstance(request, Release):
                    if note is not None and request.edit is not None:
                        await asyncio.to_thread(note, request.edit)
                    try:
                        yield request.text
                    finally:
                        run.send(None)
                else:
                    started = perf_counter()
                    reply = await batcher.answer(request)
                    run.reply(reply, perf_counter() - started)
    finally:
        try:
            await source.close()
        finally:
            run.end()
            if run.outcome is not None:
                await settle(run.outcome)


class _Source:
    """Chunks from an asynchronous iterable, or from a plain one."""

    def __init__(self, chunks: AsyncIterable[str] | Iterable[str]) -> None:
        self._chunks = aiter(chunks) if isinstance(chunks, AsyncIterable) else iter(chunks)

    async def read(self) -> str | Pause | None:
        """The next chunk; None at the end."""
        if not isinstance(self._chunks, AsyncIterator):
            return _read(self._chunks)
        try:
            return _require_chunk(await anext(self._chunks))
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        """Closes the iterator if it can be closed."""
        if (aclose := getattr(self._chunks, "aclose", None)) is not None:
            await aclose()
        else:
            _close(self._chunks)


def _read(source: Iterator[object]) -> str | Pause | None:
    try:
        return _require_chunk(next(source))
    except StopIteration:
        return None


def _close(source: object) -> None:
    if (close := getattr(source, "close", None)) is not None:
        close()


def _require_chunk(chunk: object) -> str | Pause:
    if isinstance(chunk, str) or chunk is PAUSE:
        return chunk
    kind = type(chunk).__name__
    del chunk  # this frame is part of the traceback
    raise TypeError(f"expected chunks of str, got {kind}")


def _require_chunks(chunks: Chunks) -> Chunks:
    if isinstance(chunks, (str, bytes)):
        raise TypeError(f"expected an iterable of chunks, got one {type(chunks).__name__}; put it in a list")
    return chunks
