"""Asks a chat API over loopback and times what comes back, for the benchmark of the proxy.

Raw asyncio: a client library would take a good part of the processor that is being measured.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from time import perf_counter

__all__ = ["Connection", "ProxyAnswer", "ask_all"]


@dataclass(frozen=True, slots=True)
class ProxyAnswer:
    """One answer: its status, ``retry-after``, text, and when what of it was there, in seconds since asking.

    ``arrived`` holds, for each piece of text, the number of characters that were there and the time.
    """

    status: int
    retry_after: str | None
    text: str
    seconds: float
    arrived: list[tuple[int, float]]

    def seconds_until(self, characters: int) -> float:
        """When so many characters were there."""
        return next(at for there, at in self.arrived if there >= characters)


class Connection:
    """One kept-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, *, seed: int, stream: bool, pace: float = 0.0) -> ProxyAnswer:
        """The answer to one question."""
        asked = {"model": "fake-1", "seed": seed, "messages": [{"role": "user", "content": "Go on."}]}
        body = json.dumps(asked | ({"stream": True, "pace": pace} if stream else {})).encode()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        started = perf_counter()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
        writer.write(
            f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )
        answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(answered.split()[1])
        retry = re.search(r"retry-after: (\S+)", answered)
        text, arrived = "", list[tuple[int, float]]()
        if "transfer-encoding: chunked" in answered:
            async for piece in _pieces(reader):
                text += piece
                arrived.append((len(text), perf_counter() - started))
        else:
            length = int(re.search(r"content-length: (\d+)", answered)[1])  # type: ignore[index]  # or chunked
            found = json.loads(await reader.readexactly(length))
            text = found["choices"][0]["message"]["content"] if status == 200 else ""
        if "connection: close" in answered:
            self.close()
        return ProxyAnswer(status, retry and retry[1], text, perf_counter() - started, arrived)

    def close(self) -> None:
        """Ends the connection; the next question opens another."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def _pieces(reader: asyncio.StreamReader):  # type: ignore[no-untyped-def]  # an asynchronous generator of str
    buffer = b""
    while size := int(await reader.readline(), 16):
        buffer += (await reader.readexactly(size + 2))[:-2]
        *events, buffer = buffer.split(b"\n\n")
        for event in events:
            if event.startswith(b"data: {"):
                for choice in json.loads(event[6:])["choices"]:
                    if piece := choice["delta"].get("content"):
                        yield piece
    await reader.readline()


async def ask_all(
    port: int, seeds: Iterable[int], *, streams: int, ask: Callable[[Connection, int], Awaitable[ProxyAnswer]]
) -> list[ProxyAnswer]:
    """The answers to all seeds, so many at a time, each lane on a connection of its own."""
    left, answers = iter(seeds), list[ProxyAnswer]()

    async def lane() -> None:
        connection = Connection(port)
        for seed in left:
            answers.append(await ask(connection, seed))  # one after the other
        connection.close()

    await asyncio.gather(*(lane() for _ in range(streams)))
    return answers
