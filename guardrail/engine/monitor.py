"""Streams in monitor mode: every chunk goes out as it comes, and the text is judged behind it.

A stream hands its text to a ``Follower`` when it ends. The follower's thread judges one text after the other,
so that no stream waits for a model, and none is held up by one that hangs.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from guardrail.engine.drive import drive
from guardrail.engine.steps import Ask, Flow, Pause
from guardrail.engine.stream import (
    AsyncPushStream,
    AsyncSource,
    AsyncStream,
    PushStream,
    Stream,
    close_source,
    require_chunk,
    require_chunks,
)
from guardrail.outcome import Action, Outcome, Verdict

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = [
    "AsyncMonitoredPushStream",
    "AsyncMonitoredStream",
    "Follower",
    "MonitoredPushStream",
    "MonitoredStream",
    "MonitoredText",
]

logger = logging.getLogger("guardrail")
UNJUDGED = Verdict({}, False)


class Follower:
    """Judges texts that were passed on already, in a thread of its own, in the order in which they ended.

    ``settle`` is told each outcome; what it raises is logged, since no caller is there to hear of it. At most
    ``queue`` texts wait; one more is not judged, and its outcome says so. The thread ends with the follower.
    A program that ends waits until all texts are judged.
    """

    def __init__(self, ask: Ask, *, queue: int, settle: Callable[[Outcome], object]) -> None:
        self._ask = ask
        self._settle = settle
        self._queue = queue
        self._waiting = 0
        self._lock = threading.Lock()
        self._process: int | None = None
        self._executor: ThreadPoolExecutor | None = None

    def follow(self, text: MonitoredText) -> None:
        """Has a text judged once those before it are."""
        if not self._submit(partial(self._judge, text)):
            self._tell(text, text.unjudged("monitor_overload"))

    def defer(self, work: Callable[[], object]) -> None:
        """Has work done once the texts before it are judged, for answers that are more than one text."""
        if not self._submit(partial(_attempt, work)):
            self._tell(None, _unjudged("", "monitor_overload"))

    def _submit(self, work: Callable[[], object]) -> bool:
        """False if too much waits already, or the interpreter is being shut down."""
        with self._lock:
            if self._waiting >= self._queue:
                return False
            self._waiting += 1
        try:
            self._started().submit(self._work, work)
        except RuntimeError:
            return False
        return True

    def _work(self, work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self._waiting -= 1

    def _started(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor  # only who monitors streams needs it

        with self._lock:
            if self._executor is None or self._process != os.getpid():  # a forked child has no threads
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="guardrail-monitor")
                self._process = os.getpid()
            return self._executor

    def _judge(self, text: MonitoredText) -> None:
        try:
            outcome = drive(text.flow, text.pieces, self._ask)
            if not text.is_whole:
                outcome = replace(outcome, degraded=(*outcome.degraded, "unfinished"))
        except Exception as error:  # noqa: BLE001  # a model's file that is missing, say
            logger.error("a text in monitor mode was not judged: %s", type(error).__name__)
            outcome = text.unjudged("detector_error")
        self._tell(text, outcome)

    def _tell(self, text: MonitoredText | None, outcome: Outcome) -> None:
        try:
            self._settle(outcome)
        except Exception as error:  # noqa: BLE001  # whatever a hook raises
            logger.error("an outcome in monitor mode was not taken: %s", type(error).__name__)
        if text is not None:
            text.verdict.set_result(outcome)


def _attempt(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:  # noqa: BLE001  # an answer that cannot be read, say
        logger.error("an answer in monitor mode was not judged: %s", type(error).__name__)


class MonitoredText:
    """A text as it was passed on, and its outcome once it is judged."""

    def __init__(self, flow: Flow, follower: Follower) -> None:
        self.flow = flow
        self.pieces: list[str | Pause] = []
        self.is_whole = False
        self.verdict: Future[Outcome] = Future()
        self._follower = follower
        self._is_open = True

    @property
    def outcome(self) -> Outcome | None:
        """None until the text is over; ``degraded`` by ``pending`` until it is judged."""
        if self._is_open:
            return None
        return self.verdict.result() if self.verdict.done() else self.unjudged("pending")

    def unjudged(self, reason: str) -> Outcome:
        """The outcome of a text of which no verdict is known."""
        return _unjudged("".join(piece for piece in self.pieces if isinstance(piece, str)), reason)

    def end(self, *, is_whole: bool) -> None:
        """Has the text judged, unless that was asked for before."""
        if self._is_open:
            self._is_open = False
            self.is_whole = is_whole
            self._follower.follow(self)


class MonitoredPushStream(PushStream):
    """A text that is handed in piece by piece, and given back at once."""

    def __init__(self, text: MonitoredText) -> None:
        self._text = text

    @property
    def outcome(self) -> Outcome | None:
        """As for ``MonitoredStream``."""
        return self._text.outcome

    def push(self, piece: str | Pause | None) -> Generator[str, None, None]:
        """The piece; nothing for None, at the end of the text."""
        if piece is None:
            self._text.end(is_whole=True)
            return
        self._text.pieces.append(piece)
        if isinstance(piece, str):
            yield piece

    def close(self) -> None:
        """Ends the text, if it is not over."""
        self._text.end(is_whole=False)


class AsyncMonitoredPushStream(AsyncPushStream):
    """The same for ``await``."""

    def __init__(self, text: MonitoredText) -> None:
        self._pushed = MonitoredPushStream(text)

    @property
    def outcome(self) -> Outcome | None:
        """As for ``MonitoredStream``."""
        return self._pushed.outcome

    async def push(self, piece: str | Pause | None) -> AsyncGenerator[str, None]:
        """The piece; nothing for None, at the end of the text."""
        for text in self._pushed.push(piece):
            yield text

    async def close(self) -> None:
        """Ends the text, if it is not over."""
        self._pushed.close()


class MonitoredStream(Stream):
    """The chunks as they come. The text is judged after its end, behind the back of who reads it."""

    def __init__(self, chunks: Iterable[str], *, text: MonitoredText) -> None:
        self._source = iter(require_chunks(chunks))
        self._text = text
        self._pieces = _pieces(self._source, text)

    @property
    def outcome(self) -> Outcome | None:
        """None until the stream has ended; then ``degraded`` by ``pending`` until the text is judged."""
        return self._text.outcome

    def judged(self, timeout: float | None = None) -> Outcome:
        """As Stream has it. TimeoutError if the verdict takes more than ``timeout`` seconds."""
        super().judged()
        return self._text.verdict.result(timeout)


class AsyncMonitoredStream(AsyncStream):
    """The same for ``async for``."""

    def __init__(self, chunks: AsyncIterable[str] | Iterable[str], *, text: MonitoredText) -> None:
        self._source = AsyncSource(require_chunks(chunks))
        self._text = text
        self._pieces = _async_pieces(self._source, text)

    @property
    def outcome(self) -> Outcome | None:
        """As for ``MonitoredStream``."""
        return self._text.outcome

    async def judged(self) -> Outcome:
        """As AsyncStream has it."""
        await super().judged()
        import asyncio

        return await asyncio.shield(asyncio.wrap_future(self._text.verdict))


def _unjudged(text: str, reason: str) -> Outcome:
    return Outcome(text, Action.PASSED, UNJUDGED, UNJUDGED, degraded=(reason,))


def _pieces(source: Iterator[object], text: MonitoredText) -> Generator[str, None, None]:
    is_whole = False
    try:
        for chunk in source:
            piece = require_chunk(chunk)
            text.pieces.append(piece)
            if isinstance(piece, str):
                yield piece
            del chunk, piece  # an error of the next one shows this frame
        is_whole = True
    finally:
        try:
            close_source(source)
        finally:
            text.end(is_whole=is_whole)


async def _async_pieces(source: AsyncSource, text: MonitoredText) -> AsyncGenerator[str, None]:
    is_whole = False
    try:
        while (piece := await source.read()) is not None:
            text.pieces.append(piece)
            if isinstance(piece, str):
                yield piece
            del piece  # an error of the next one shows this frame
        is_whole = True
    finally:
        try:
            await source.close()
        finally:
            text.end(is_whole=is_whole)
