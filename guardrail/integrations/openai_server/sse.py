"""Server-sent events: read from bytes, and written."""

from __future__ import annotations

from collections.abc import Iterator

from guardrail.integrations.openai_server.wire import JsonObject, MalformedError, dumps

__all__ = ["DONE", "EventReader", "event"]

DONE = b"data: [DONE]\n\n"
_BOM = b"\xef\xbb\xbf"


class EventReader:
    """Bytes in, the payloads of events out, however the bytes were cut.

    Comments and fields other than ``data`` are dropped unread; what is not UTF-8 becomes replacement
    characters, as the standard has it. MalformedError where an event is longer than ``limit`` bytes.
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


def event(payload: JsonObject) -> bytes:
    """One event with a JSON payload."""
    return f"data: {dumps(payload)}\n\n".encode("ascii")
