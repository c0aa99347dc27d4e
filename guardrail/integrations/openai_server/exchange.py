"""One request and its answer, as the proxy needs to know them: each API has a class of its own."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Protocol

from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.strict_json import JsonObject, dumps
from guardrail.integrations.web.errors import ApiError

__all__ = ["AnswerStream", "Exchange", "Write", "event"]

Headers = list[tuple[bytes, bytes]]
Write = Callable[[bytes], Awaitable[None]]


class AnswerStream(Protocol):
    """A streamed answer while it is moderated."""

    @property
    def is_over(self) -> bool: ...
    async def run(self, events: AsyncIterable[object], *, deadline: float) -> None: ...


class Exchange:
    """A request for an answer that ``moderator`` judges; ``body`` goes upstream as it came.

    ``last`` ends a stream that ended well.
    """

    def __init__(
        self,
        path: str,
        headers: Headers,
        body: bytes,
        *,
        moderator: Moderator,
        streamed: bool,
        last: bytes = b"",
        method: str = "POST",
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.moderator = moderator
        self.streamed = streamed
        self.last = last

    def error_in(self, content: JsonObject) -> object:
        """The error that a whole answer is, or None."""
        raise NotImplementedError

    async def moderated(self, content: JsonObject) -> JsonObject:
        """A whole answer, moderated; MalformedError if it has another shape."""
        raise NotImplementedError

    def stream(self, write: Write) -> AnswerStream:
        """A streamed answer, of which ``write`` gets the bytes."""
        raise NotImplementedError

    def error_event(self, error: ApiError) -> bytes:
        """The event that ends a stream in its middle."""
        return event(error.body)


def event(payload: JsonObject, *, name: str | None = None) -> bytes:
    """One event with a JSON payload, and with a name if the API gives its events names."""
    named = "" if name is None else f"event: {name}\n"
    return f"{named}data: {dumps(payload)}\n\n".encode("ascii")
