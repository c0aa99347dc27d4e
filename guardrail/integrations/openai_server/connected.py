"""Work for a client, ended when the client leaves or the time is over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from guardrail.integrations.openai_server.replies import ApiError
from guardrail.integrations.openai_server.sse import event

__all__ = ["LAST_WORDS", "LeftError", "Streaming", "late", "while_connected"]

T = TypeVar("T")
CLOSED_REQUEST = 499
LAST_WORDS = 5.0
"""Seconds in which a stream that must end may still say what is clean of it, and why it ends."""


class LeftError(ApiError):
    """The client has left; there is nobody to tell."""

    def __init__(self) -> None:
        super().__init__("the client has left", status=CLOSED_REQUEST)


def late() -> ApiError:
    """The error for work that took longer than this server lets it."""
    return ApiError(
        "not done within this server's max_seconds", status=504, kind="server_error", code="timeout"
    )


async def while_connected(receive: Receive, work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """What the work returns, or raises. LeftError where the client left, ApiError where the time was over."""
    failure: Exception = LeftError()
    results: list[T] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_wait_for_leaving, receive, tasks.cancel_scope)
        try:
            with anyio.fail_after(seconds):
                results.append(await work())
        except TimeoutError:
            failure = late()
        except Exception as error:  # noqa: BLE001  # raised below, outside the group that would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if results:
        return results[0]
    raise failure


class Streaming(Response):
    """A stream of events that ``work`` writes.

    Its head goes out with the first bytes: until then an ApiError of the work becomes the whole answer; later
    it becomes the last event, behind which the stream ends without ``[DONE]``. The work keeps to ``seconds``
    by itself, and is ended a little later where it does not.
    """

    def __init__(
        self,
        work: Callable[[Writer], Awaitable[None]],
        *,
        seconds: float,
        on_cut: Callable[[ApiError], object],
    ) -> None:
        self._work = work
        self._seconds = seconds
        self._on_cut = on_cut
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        writer = Writer(send)
        try:
            await while_connected(receive, lambda: self._work(writer), seconds=self._seconds + LAST_WORDS)
        except LeftError:
            return
        except ApiError as error:
            if not writer.started:
                await error.reply()(scope, receive, send)
                return
            self._on_cut(error)
            with anyio.move_on_after(LAST_WORDS):
                await writer.write(event(error.body))
        await writer.close()


class Writer:
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


async def _wait_for_leaving(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
