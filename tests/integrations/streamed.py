"""What tests of streamed answers share: a stream read to its end, and an upstream that gives one answer."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import cache
from typing import Any

from starlette.responses import JSONResponse, Response

from guardrail import Policy
from guardrail.integrations.completions.event_stream import EventStream
from guardrail.integrations.completions.moderator import Moderator
from tests.integrations.server.running import Upstream, events, fake_guard

Event = dict[str, Any]
Write = Callable[[Event], Awaitable[None]]


@cache
def moderator(policy: Policy | None) -> Moderator:
    """One for all tests, as a server has it."""
    return Moderator(fake_guard(policy))


class StreamRun:
    """One stream that was read to its end; ``error`` is what it raised."""

    def __init__(self, shown: Iterable[Any], opened: Callable[[Write], EventStream]) -> None:
        self.written: list[Event] = []
        self.error: Exception | None = None
        asyncio.run(self._run(shown, opened))

    async def _run(self, shown: Iterable[Any], opened: Callable[[Write], EventStream]) -> None:
        async def source() -> AsyncIterator[Any]:
            for event in shown:
                if isinstance(event, Exception):
                    raise event
                yield copy.deepcopy(event)

        async def write(event: Event) -> None:
            self.written.append(copy.deepcopy(event))

        try:
            await opened(write).run(source())
        except Exception as error:  # noqa: BLE001  # whatever it is, a test looks at it
            self.error = error


def named(shown: Sequence[Event]) -> list[str | bytes]:
    """Events as the APIs send them, each with its name."""
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in shown]


def answer_with(upstream: Upstream, answer: Event, shown: Sequence[Event]) -> None:
    """From now on the upstream gives this answer, whole or as these events, whichever is asked for."""

    def reply(asked: Any) -> Response:
        return events(named(shown)) if asked.body.get("stream") else JSONResponse(answer)

    upstream.reply = reply
