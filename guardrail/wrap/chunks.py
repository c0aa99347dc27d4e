"""Iterators that functions return or are: moderated as streams of text, or of objects with text in them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator
from contextlib import aclosing
from inspect import isawaitable
from types import TracebackType
from typing import Any, cast

from guardrail.engine.adapters import TextModerator
from guardrail.engine.stream import AsyncStream, RepetitionCheck, Stream
from guardrail.outcome import Outcome

__all__ = ["AsyncChunks", "Chunks", "EitherChunks"]


class Chunks(Stream):
    """What may be shown of an iterable of chunks. The first one tells whether they are text or objects."""

    def __init__(self, chunks: Iterable[Any], *, by: TextModerator) -> None:
        by.stream(())  # a policy that no stream can keep is refused here and now
        self._given = chunks
        self._chunks = iter(chunks)
        self._by = by
        self._inner: Stream | Generator[Any, None, None] | None = None

    @property
    def outcome(self) -> Outcome | None:
        """As for ``Stream``; None for chunks that are objects, each of whose texts has one of its own."""
        return self._inner.outcome if isinstance(self._inner, Stream) else None

    @property
    def response(self) -> Any:
        """The HTTP response that an API client's stream comes from; AttributeError for any other iterable."""
        return self._given.response  # type: ignore[attr-defined]

    def __next__(self) -> Any:
        if self._inner is None:
            self._inner = self._opened()
        return next(self._inner)

    def close(self) -> None:
        """Ends the stream, and closes its source."""
        if self._inner is not None:
            self._inner.close()
        _close(self._chunks, self._given)

    def _opened(self) -> Stream | Generator[Any, None, None]:
        first: list[Any] = []
        error: list[Exception] = []
        try:
            first.append(next(self._chunks))
        except StopIteration:
            pass
        except Exception as raised:  # noqa: BLE001  # raised again where a stream reads it
            error.append(raised)
        if first and _is_object(first[0]):
            return _objects(_rest(first, error, self._chunks, self._given), self._by)
        return self._by.stream(_only_new(_rest(first, error, self._chunks, self._given)))


class AsyncChunks(AsyncStream):
    """The same for ``async for``."""

    def __init__(self, chunks: AsyncIterable[Any], *, by: TextModerator) -> None:
        by.stream(())
        self._given = chunks
        self._achunks = aiter(chunks)
        self._by = by
        self._ainner: AsyncStream | AsyncGenerator[Any, None] | None = None

    @property
    def outcome(self) -> Outcome | None:
        """As for ``Chunks``."""
        return self._ainner.outcome if isinstance(self._ainner, AsyncStream) else None

    @property
    def response(self) -> Any:
        """As for ``Chunks``."""
        return self._given.response  # type: ignore[attr-defined]

    async def __anext__(self) -> Any:
        if self._ainner is None:
            self._ainner = await self._aopened()
        return await anext(self._ainner)

    async def aclose(self) -> None:
        """Ends the stream, and closes its source."""
        if self._ainner is not None:
            await self._ainner.aclose()
        await _aclose(self._achunks, self._given)

    async def _aopened(self) -> AsyncStream | AsyncGenerator[Any, None]:
        first: list[Any] = []
        error: list[Exception] = []
        try:
            first.append(await anext(self._achunks))
        except StopAsyncIteration:
            pass
        except Exception as raised:  # noqa: BLE001  # raised again where a stream reads it
            error.append(raised)
        if first and _is_object(first[0]):
            return _aobjects(_arest(first, error, self._achunks, self._given), self._by)
        return self._by.astream(_aonly_new(_arest(first, error, self._achunks, self._given)))


class EitherChunks(Chunks, AsyncIterator[Any]):
    """The same for a source that can be read in both ways: it is read in the way that is asked for."""

    def __init__(self, chunks: Any, *, by: TextModerator) -> None:
        by.stream(())
        self._given = chunks
        self._chunks = iter(())
        self._by = by
        self._inner = None
        self._waited: AsyncChunks | None = None

    @property
    def outcome(self) -> Outcome | None:
        """As for ``Chunks``."""
        return super().outcome if self._waited is None else self._waited.outcome

    def __next__(self) -> Any:
        if self._inner is None:
            self._chunks = iter(self._given)
        return super().__next__()

    async def __anext__(self) -> Any:
        if self._waited is None:
            self._waited = AsyncChunks(cast("AsyncIterable[Any]", self._given), by=self._by)
        return await anext(self._waited)

    async def aclose(self) -> None:
        """As ``close``, for a stream that is read by ``async for``."""
        await (_aclose(self._given) if self._waited is None else self._waited.aclose())

    async def __aenter__(self) -> EitherChunks:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _is_object(chunk: object) -> bool:
    from guardrail.structured.chunks import is_chunk

    return not isinstance(chunk, str) and is_chunk(chunk)


def _only_new(chunks: Generator[Any, None, None]) -> Generator[Any, None, None]:
    repetition = RepetitionCheck()
    try:
        for chunk in chunks:
            repetition.see(chunk)
            yield chunk
            del chunk  # an error of the next one shows this frame
    finally:
        chunks.close()


async def _aonly_new(chunks: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    repetition = RepetitionCheck()
    async with aclosing(chunks):
        async for chunk in chunks:
            repetition.see(chunk)
            yield chunk
            del chunk


def _objects(chunks: Generator[Any, None, None], by: TextModerator) -> Generator[Any, None, None]:
    from guardrail.engine.adapters import SyncGuardAdapter, as_async, run_sync
    from guardrail.errors import WithoutFrames
    from guardrail.structured.chunks import moderated_chunks

    try:
        with WithoutFrames():
            yield from run_sync(moderated_chunks(as_async(chunks), SyncGuardAdapter(by)))
    finally:
        chunks.close()


async def _aobjects(chunks: AsyncGenerator[Any, None], by: TextModerator) -> AsyncGenerator[Any, None]:
    from guardrail.engine.adapters import AsyncGuardAdapter
    from guardrail.errors import WithoutFrames
    from guardrail.structured.chunks import moderated_chunks

    with WithoutFrames():
        async with aclosing(chunks), aclosing(moderated_chunks(chunks, AsyncGuardAdapter(by))) as released:
            async for chunk in released:
                yield chunk
                del chunk


def _rest(
    first: list[Any], error: list[Exception], chunks: Iterator[Any], given: object
) -> Generator[Any, None, None]:
    """The chunks from the first one on, which was taken out, or whose error was."""
    try:
        if error:
            raise error.pop()
        if first:
            yield first.pop()
            yield from chunks
    finally:
        _close(chunks, given)


async def _arest(
    first: list[Any], error: list[Exception], chunks: AsyncIterator[Any], given: object
) -> AsyncGenerator[Any, None]:
    try:
        if error:
            raise error.pop()
        if first:
            yield first.pop()
            async for chunk in chunks:
                yield chunk
                del chunk
    finally:
        await _aclose(chunks, given)


def _close(*sources: object) -> None:
    """Closes an iterator, and what it is of, if they can be closed."""
    for source in sources:
        if (close := getattr(source, "close", None)) is not None:
            close()


async def _aclose(*sources: object) -> None:
    for source in sources:
        close = getattr(source, "aclose", None) or getattr(source, "close", None)
        if close is not None and isawaitable(waiting := close()):
            await waiting
