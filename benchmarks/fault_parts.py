"""The parts of the fault campaign that break on demand: plug-ins, audit, clock, upstream."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from guardrail.audit import trail
from guardrail.audit.store import AuditStore
from guardrail.audit.trail import Intervention

__all__ = ["BreakingAudit", "BreakingPlugin", "BreakingUpstream", "clock_jump", "markers_in"]

PAUSE = 30.0
"""Seconds that a stalled or hanging part waits at most; every wait is cut short from outside."""
FLOOD = 40_000
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\nconnection: close\r\n\r\n"
NONSENSE: tuple[Callable[[Sequence[str]], Any], ...] = (
    lambda texts: None,
    lambda texts: [],
    lambda texts: [None] * (len(texts) + 1),
    lambda texts: [float("nan")] * len(texts),
    lambda texts: "idiot",
    lambda texts: [[17]] * len(texts),
)
"""Replies that no plug-in may give. A false "clean" is none of them: nothing could tell it."""


def markers_in(text: str) -> set[int]:
    """The numbers of the requests whose text this is."""
    return {int(found) for found in re.findall(r"\d{6}", text)}


class BreakingPlugin:
    """A plug-in around a working one; ``break_down`` has its next calls fail."""

    def __init__(self, works: Callable[..., Any], dice: random.Random) -> None:
        self.works = works
        self.hit: list[tuple[float, set[int]]] = []
        self.hanging = 0
        self._dice = dice
        self._mode = ""
        self._left = 0
        self._lock = threading.Lock()
        self._lifted = threading.Event()

    def __call__(self, texts: Sequence[str], *rest: Any) -> Any:
        """What the working one says, or the fault."""
        with self._lock:
            mode = self._mode if self._left > 0 else ""
            if mode:
                self._left -= 1
                self.hit.append((time.perf_counter(), markers_in(" ".join(texts))))
        if mode == "raises":
            raise RuntimeError("the plug-in broke on purpose: idiot")
        if mode == "memory":
            raise MemoryError
        if mode == "nonsense":
            return self._dice.choice(NONSENSE)(texts)
        if mode == "hangs":
            self.hanging += 1
            self._lifted.wait(PAUSE)
            self.hanging -= 1
        return self.works(texts, *rest)

    def break_down(self, mode: str, calls: int) -> None:
        """Has so many of the next calls fail."""
        with self._lock:
            self._lifted.clear()
            self.hit, self._mode, self._left = [], mode, calls

    @property
    def is_spent(self) -> bool:
        """True once every call that should fail has failed."""
        return self._left <= 0

    def lift(self) -> None:
        """Works again, and what hangs continues."""
        with self._lock:
            self._left = 0
        self._lifted.set()


class BreakingAudit(AuditStore):
    """An audit in a real SQLite file whose disk can be full and whose database can be gone."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, include_text=True)
        self._path = path
        self._kept = path.with_suffix(".away")
        self.is_full = False
        self.failed = 0
        self._whole = threading.Lock()  # a file that is moved in the middle of a write loses what was written

    def record(self, found: Sequence[Intervention], /) -> None:
        """As AuditStore has it, and counts what could not be recorded."""
        try:
            if self.is_full:
                raise OSError(28, "No space left on device")
            with self._whole:
                super().record(found)
        except Exception:
            self.failed += 1
            raise

    def leave(self) -> None:
        """The database is gone: SQLite cannot open what stands in its place."""
        with self._whole:
            self.close()
            for end in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{self._path}{end}").rename(f"{self._kept}{end}")
            self._path.mkdir()
            self.close()

    def come_back(self) -> None:
        """The database is there again."""
        with self._whole:
            self.close()
            self._path.rmdir()
            for end in ("", "-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{self._kept}{end}").rename(f"{self._path}{end}")


@contextmanager
def clock_jump(seconds: float) -> Iterator[None]:
    """The wall clock is off by so much, for whoever asks ``time`` or writes the audit."""
    right, now = time.time, trail.now
    with (
        patch.object(time, "time", lambda: right() + seconds),
        patch.object(trail, "now", lambda: now() + timedelta(seconds=seconds)),
    ):
        yield


class BreakingUpstream:
    """A model's server; ``texts`` has each request's sentences and ``faults`` how its answer fails."""

    def __init__(self, dice: random.Random) -> None:
        self.texts: dict[int, list[str]] = {}
        self.faults: dict[int, str] = {}
        self._dice = dice

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one connection's one request."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"content-length: (\d+)", head)
            asked = json.loads(await reader.readexactly(int(length[1]) if length else 0) or b"{}")
            number = asked.get("seed", 0)
            pieces = self._pieces(number, streamed=bool(asked.get("stream")))
            await self._write(writer, pieces, self.faults.get(number, ""))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _pieces(self, number: int, *, streamed: bool) -> list[bytes]:
        sentences = self.texts[number]
        envelope = {"id": f"chatcmpl-{number}", "created": 1700000000, "model": "small"}
        if not streamed:
            message = {"role": "assistant", "content": " ".join(sentences)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps(envelope | {"object": "chat.completion", "choices": [choice]}).encode()
            cut = len(body) // 2
            return [HEAD % b"application/json", body[:cut], body[cut:]]
        words = re.findall(r"\S+\s*", " ".join(sentences))
        pairs = ["".join(words[at : at + 2]) for at in range(0, len(words), 2)]
        return [
            HEAD % b"text/event-stream",
            *(_event(envelope, {"content": pair}) for pair in pairs),
            _event(envelope, {}, "stop") + b"data: [DONE]\n\n",
        ]

    async def _write(self, writer: asyncio.StreamWriter, pieces: list[bytes], fault: str) -> None:
        middle = len(pieces) // 2 if fault else len(pieces)
        for piece in pieces[:middle]:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if fault == "stalls":
            await asyncio.sleep(2.0)
        elif fault == "garbles":
            writer.write(b"data: " + self._dice.randbytes(300) + b'{"choices": idiot\n\n')
        elif fault == "floods":
            line = b"data: " + b"idiot " * 200 + b"\n\n"
            writer.write(line * (FLOOD // len(line)) if self._dice.random() < 0.5 else b": " + b"x" * FLOOD)
        elif fault == "cuts":
            writer.transport.abort()
        await writer.drain()


def _event(envelope: dict[str, Any], delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = envelope | {"object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n".encode()
