"""Server-sent events: read from bytes, written, and answered with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from guardrail.integrations.openai_server.limits import (
    CLOSING_SECONDS,
    ClientDisconnectedError,
    while_connected,
)
from guardrail.integrations.strict_json import JsonObject, MalformedError, dumps
from guardrail.integrations.web.errors import ApiError

__all__ = ["DONE", "EventReader", "EventStreamResponse", "EventWriter", "event"]

DONE = b"data: [DONE]\n\n"
_BOM = b"\xef\xbb\xbf"


def event(payload: JsonObject, *, name: str | None = None) -> bytes:
    """One event with a JSON payload, and with a name if the API gives its events names."""
    named = "" if name is None else f"event: {name}\n"
    return f"{named}data: {dumps(payload)}\n\n".encode("ascii")


class EventReader:
    """Bytes in, the payloads of events out, however the bytes were cut.

    Comments and fields other than ``data`` are dropped unread; what is not UTF-8 becomes replacement
    characters, as the standard has it. MalformedError if an event is longer than ``limit`` bytes.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._payload: list[bytes] = []
        self._size = 0
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The payloads that are complete now."""
        half_break = self._buffer.endswith(b"\r")
        self._buffer += chunk
        if self._size + len(self._buffer) > self._limit + len(chunk):
            raise MalformedError("an event is too long")
        if half_break or b"\n" in chunk or b"\r" in chunk:
            for line in self._take_lines():
                yield from self._line(line)

    def _take_lines(self) -> list[bytes]:
        """The complete lines; a carriage return at the end may be half of a line break, so it waits."""
        held = b"\r" * self._buffer.endswith(b"\r")
        whole = bytes(self._buffer).removesuffix(held)
        *lines, rest = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._buffer = bytearray(rest + held)
        if lines and not self._started:
            lines[0] = lines[0].removeprefix(_BOM)
            self._started = True
        return lines

    def close(self) -> Iterator[str]:
        """What was begun and not ended by a blank line."""
        for line in (bytes(self._buffer.removesuffix(b"\r")), b""):
            yield from self._line(line)
        self._buffer.clear()

    def _line(self, line: bytes) -> Iterator[str]:
        if not line:
            if self._payload:
                yield b"\n".join(self._payload).decode("utf-8", "replace")
            self._payload, self._size = [], 0
        elif line == b"data" or line.startswith(b"data:"):
            value = line[len(b"data:") :].removeprefix(b" ")
            self._payload.append(value)
            self._size += len(value)


class EventStreamResponse(Response):
    """A stream of events that ``work`` writes.

    Its head goes out with the first bytes: until then an ApiError of the work becomes the whole answer; later
    it becomes the last event, as ``error_event`` writes it, behind which the stream ends without ``[DONE]``.
    The work keeps to ``seconds`` by itself, and is ended a little later if it does not.
    """

    def __init__(
        self,
        work: Callable[[EventWriter], Awaitable[None]],
        *,
        seconds: float,
        on_cut: Callable[[ApiError], object],
        error_event: Callable[[ApiError], bytes] = lambda error: event(error.body),
    ) -> None:
        self._work = work
        self._seconds = seconds
        self._on_cut = on_cut
        self._error_event = error_event
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = EventWriter(send)
        try:
            await while_connected(
                receive, lambda: self._work(writer), seconds=self._seconds + CLOSING_SECONDS
            )
        except ClientDisconnectedError:
            return
        except ApiError as error:
            if not writer.started:
                await error.reply()(scope, receive, send)
                return
            self._on_cut(error)
            with anyio.move_on_after(CLOSING_SECONDS):
                await writer.write(self._error_event(error))
        await writer.close()


class EventWriter:
    """Sends the bytes of an answer's body, its head before them."""

    def __init__(self, send: Send) -> None:
        self.started = False
        self.headers: dict[str, str] = {}
        self._send = send

    async def write(self, content: bytes) -> None:
        """Sends some more bytes."""
        if not self.started:
            self.started = True
            head = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
            raw = [(name.encode(), value.encode("latin-1")) for name, value in (self.headers | head).items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": raw})
        await self._send({"type": "http.response.body", "body": content, "more_body": True})

    async def close(self) -> None:
        """Ends the body."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
