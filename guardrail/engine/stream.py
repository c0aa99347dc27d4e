"""Drives flows over texts that arrive in pieces: what may be shown is handed out as soon as it is judged.

``Stream`` and ``AsyncStream`` pull chunks from a source. A ``PushStream`` or ``AsyncPushStream`` is given its
pieces, for sources whose chunks hold more than text.
"""

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
from contextlib import aclosing
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from guardrail.engine.drive import FlowRun
from guardrail.engine.steps import PAUSE, Ask, Flow, ModelCall, Pause, Read, Release
from guardrail.errors import FailureError, UsageError, without_frames
from guardrail.outcome import Edit, Outcome

if TYPE_CHECKING:
    from guardrail.engine.batching import Batcher

__all__ = [
    "AsyncPushStream",
    "AsyncSource",
    "AsyncStream",
    "PushStream",
    "RepetitionCheck",
    "Stream",
    "close_source",
    "require_chunk",
    "require_chunks",
]

Chunks = TypeVar("Chunks")
Note = Callable[[Edit], object]
AsyncAsk = Callable[[ModelCall], Awaitable[Any]]
MIN_REPEATED = 16
"""Characters that chunks must have repeated from those before, so that it is not chance."""
CURSORS = "▌▍▎▏▋▊▉█▮●|_"
"""Marks that stand for a cursor at the end of a text that continues."""


class _Pushed:
    """A text that is handed in piece by piece.

    ``settle`` is told the outcome once, after the last piece; ``note`` each edit before its text is given.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        ask: Callable[[ModelCall], Any],
        settle: Callable[[Outcome], Any],
        note: Note | None = None,
    ) -> None:
        self._run = FlowRun(flow)
        self._ask = ask
        self._settle = settle
        self._note = note
        self._is_open = True

    @property
    def outcome(self) -> Outcome | None:
        """None until the text is over."""
        return self._run.outcome

    def _end(self) -> Outcome | None:
        """Ends the text, if it is not over; its outcome, the first time that there is one."""
        self._run.end()
        if not self._is_open or self._run.outcome is None:
            return None
        self._is_open = False
        return self._run.outcome


class PushStream(_Pushed):
    """A text that is handed in piece by piece, for sources whose chunks hold more than text."""

    def push(self, piece: str | None) -> Generator[str, None, None]:
        """What may be shown once this piece has come, None at the end; nothing after a refusal."""
        yield from _released(self._run, piece, self._ask, self._note)
        if self._run.outcome is not None:
            self.close()

    def close(self) -> None:
        """Ends the text, if it is not over."""
        if (outcome := self._end()) is not None:
            self._settle(outcome)


class AsyncPushStream(_Pushed):
    """The same without blocking the event loop."""

    async def push(self, piece: str | None) -> AsyncGenerator[str, None]:
        """What may be shown once this piece has come, None at the end; nothing after a refusal."""
        async with aclosing(_areleased(self._run, piece, self._ask, self._note)) as released:
            async for text in released:
                yield text
                del text
        if self._run.outcome is not None:
            await self.close()

    async def close(self) -> None:
        """Ends the text, if it is not over."""
        if (outcome := self._end()) is not None:
            await self._settle(outcome)


class Stream(Iterator[str]):
    """The pieces of a text that may be shown, each handed out as soon as it is judged; joined, they are
    ``outcome.text``.

    A chunk is pulled from the source only while nothing is ready to be shown. The stream ends with the
    source, after a refusal, or early: by ``close``, at the end of a ``with`` block, by an exception of the
    source (which reaches the caller), or when it is dropped. However it ends, the source is closed if it
    can be, what was not shown by then never is, and ``settle`` is told the outcome once. ``note`` is told
    each edit before its text is handed out; what it raises comes in place of the text.
    """

    def __init__(
        self,
        flow: Flow,
        chunks: Iterable[str],
        *,
        ask: Ask,
        settle: Callable[[Outcome], object],
        note: Note | None = None,
    ) -> None:
        self._source = iter(require_chunks(chunks))
        self._run = FlowRun(flow)
        # A generator that does not know the stream: a dropped stream then ends at once, without a cycle.
        self._pieces = _pieces(self._run, self._source, ask, settle, note)

    @property
    def outcome(self) -> Outcome | None:
        """None until the stream has ended; then the text's outcome.

        Of a stream that ended early it is that of the text shown by then, ``degraded`` by ``unfinished``.
        """
        return self._run.outcome

    def judged(self, timeout: float | None = None) -> Outcome:
        """The outcome of a stream that has ended; in monitor mode this waits for the verdict.

        Raises UsageError before the end.
        """
        return _ended(self.outcome)

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except FailureError as error:
            raise without_frames(error)  # noqa: B904  # it is the same error

    def close(self) -> None:
        """Ends the stream, and closes its source."""
        self._pieces.close()
        close_source(self._source)

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
        self._source = AsyncSource(require_chunks(chunks))
        self._run = FlowRun(flow)
        self._pieces = _async_pieces(self._run, self._source, batcher, settle, note)

    @property
    def outcome(self) -> Outcome | None:
        """As for ``Stream``."""
        return self._run.outcome

    async def judged(self) -> Outcome:
        """The outcome of a stream that has ended; in monitor mode this waits for the verdict.

        Raises UsageError before the end.
        """
        return _ended(self.outcome)

    async def __anext__(self) -> str:
        try:
            return await anext(self._pieces)
        except FailureError as error:
            raise without_frames(error)  # noqa: B904  # it is the same error

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


class RepetitionCheck:
    """Notices chunks that repeat the text so far, as the generators of Gradio yield them."""

    def __init__(self) -> None:
        self._before = ""
        self._repeated = 0

    def see(self, chunk: object) -> None:
        """UsageError once chunks have repeated those before for too long, TypeError for what is not text."""
        if not isinstance(chunk, str):
            kind = type(chunk).__name__
            del chunk  # this frame is part of the traceback
            raise TypeError(
                "expected chunks of str, or of chat completions (choices[].delta, or delta with text), "
                f"got {kind}: yield one of these"
            )
        before = self._before if chunk.startswith(self._before) else self._before.rstrip(CURSORS)
        if len(chunk) > len(self._before) and before.strip() and chunk.startswith(before):
            self._repeated += len(before)
        elif chunk != self._before:
            self._repeated = 0
        if chunk:
            self._before = chunk
        if self._repeated >= MIN_REPEATED:
            raise UsageError(
                "each chunk starts with the one before, so they repeat the text so far, as Gradio wants it: "
                "moderate a generator that yields what is new only, and join the pieces behind it"
            )


def _released(
    run: FlowRun, piece: str | Pause | None, ask: Ask, note: Note | None
) -> Generator[str, None, None]:
    """What may be shown of a flow once it has read this piece."""
    if isinstance(run.request, Read):
        run.send(piece)
    del piece  # this frame is part of tracebacks
    while (request := run.request) is not None and not isinstance(request, Read):
        if not isinstance(request, Release):
            started = perf_counter()
            run.reply(ask(request), perf_counter() - started)
            continue
        if note is not None and request.edit is not None:
            note(request.edit)
        try:
            yield request.text
        finally:  # handed out, even if the reader leaves here
            run.send(None)


async def _areleased(
    run: FlowRun, piece: str | Pause | None, ask: AsyncAsk, note: Note | None
) -> AsyncGenerator[str, None]:
    if isinstance(run.request, Read):
        run.send(piece)
    del piece  # this frame is part of tracebacks
    while (request := run.request) is not None and not isinstance(request, Read):
        if not isinstance(request, Release):
            started = perf_counter()
            run.reply(await ask(request), perf_counter() - started)
            continue
        if note is not None and request.edit is not None:
            import asyncio  # takes half as long as numpy; plain streams go without it

            await asyncio.to_thread(note, request.edit)
        try:
            yield request.text
        finally:
            run.send(None)


def _pieces(
    run: FlowRun,
    source: Iterator[object],
    ask: Ask,
    settle: Callable[[Outcome], object],
    note: Note | None,
) -> Generator[str, None, None]:
    try:
        while run.outcome is None:
            yield from _released(run, _read(source), ask, note)
    finally:
        try:
            close_source(source)
        finally:
            run.end()
            if run.outcome is not None:
                settle(run.outcome)


async def _async_pieces(
    run: FlowRun,
    source: AsyncSource,
    batcher: Batcher,
    settle: Callable[[Outcome], Awaitable[object]],
    note: Note | None,
) -> AsyncGenerator[str, None]:
    try:
        with batcher.text():
            while run.outcome is None:
                async with aclosing(_areleased(run, await source.read(), batcher.ask, note)) as released:
                    async for text in released:
                        yield text
                        del text  # an error of the next chunk shows this frame
    finally:
        try:
            await source.close()
        finally:
            run.end()
            if run.outcome is not None:
                await settle(run.outcome)


class AsyncSource:
    """Chunks from an asynchronous iterable, or from a plain one."""

    def __init__(self, chunks: AsyncIterable[str] | Iterable[str]) -> None:
        self._chunks = aiter(chunks) if isinstance(chunks, AsyncIterable) else iter(chunks)

    async def read(self) -> str | Pause | None:
        """The next chunk; None at the end."""
        if not isinstance(self._chunks, AsyncIterator):
            return _read(self._chunks)
        try:
            return require_chunk(await anext(self._chunks))
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        """Closes the iterator if it can be closed."""
        if (aclose := getattr(self._chunks, "aclose", None)) is not None:
            await aclose()
        else:
            close_source(self._chunks)


def _ended(outcome: Outcome | None) -> Outcome:
    if outcome is None:
        raise UsageError("the stream has not ended: read it to its end, or close it, before its outcome")
    return outcome


def _read(source: Iterator[object]) -> str | Pause | None:
    try:
        return require_chunk(next(source))
    except StopIteration:
        return None


def close_source(source: object) -> None:
    """Closes what a stream reads, if it can be closed."""
    if (close := getattr(source, "close", None)) is not None:
        close()


def require_chunk(chunk: object) -> str | Pause:
    """The chunk; TypeError for one that is not text."""
    if isinstance(chunk, str) or chunk is PAUSE:
        return chunk
    kind = type(chunk).__name__
    del chunk  # this frame is part of the traceback
    raise TypeError(f"expected chunks of str, got {kind}")


def require_chunks(chunks: Chunks) -> Chunks:
    """The chunks; TypeError for one text, whose characters would be the chunks."""
    if isinstance(chunks, (str, bytes)):
        raise TypeError(f"expected an iterable of chunks, got one {type(chunks).__name__}; put it in a list")
    return chunks
