"""Closes connections on which the head of a request does not arrive in time."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["protocol_of"]


class TimedProtocol(H11Protocol):
    """uvicorn's HTTP protocol with a bound on the time that a request's head takes.

    uvicorn itself bounds a head in bytes alone, so that a client could hold connections open for nothing.
    The application's own limits begin once the head is there.
    """

    seconds: ClassVar[float]
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        """Has the timer run while a head is awaited, from its first byte or the connection's beginning."""
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


def protocol_of(seconds: float) -> type[asyncio.Protocol]:
    """The protocol for a server on which a request's head must arrive within this many seconds."""

    class Timed(TimedProtocol):
        pass

    Timed.seconds = seconds
    return Timed
