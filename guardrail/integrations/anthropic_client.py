"""Anthropic's client with moderated answers: ``guard.anthropic(client)``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any, TypeVar

from guardrail.errors import UsageError
from guardrail.guard import Guard
from guardrail.integrations.client_answers import Refused, guard_resource
from guardrail.integrations.completions.event_stream import EventStream
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.messages.message import MessageContext, moderate_message
from guardrail.integrations.messages.stream import MessageStream
from guardrail.integrations.strict_json import JsonObject

__all__ = ["guarded_client"]

C = TypeVar("C")

RAW = ("with_raw_response", "with_streaming_response")
REFUSED: dict[str, tuple[str, ...]] = {"": (*RAW, "beta", "completions"), "messages": (*RAW, "batches")}
"""Ways to answers that the guard has not seen."""


class MessagesApi:
    """The Messages API as it is moderated."""

    def holds(self, answer: JsonObject) -> bool:
        return answer.get("type") == "message"

    async def whole(
        self,
        answer: JsonObject,
        asked: JsonObject,
        moderator: Moderator,
        on_blocked: Callable[[], object],
    ) -> JsonObject:
        return await moderate_message(
            answer, moderator=moderator, asked=MessageContext.read(asked), on_blocked=on_blocked
        )

    def stream(
        self, asked: JsonObject, moderator: Moderator, write: Any, on_blocked: Callable[[], object]
    ) -> EventStream:
        return MessageStream(
            moderator=moderator, write=write, asked=MessageContext.read(asked), on_blocked=on_blocked
        )


def guarded_client(client: C, *, guard: Guard) -> C:
    """A copy of a client whose messages a guard moderates.

    Args:
        client: An Anthropic or AsyncAnthropic, or an instance of a class derived from one; it stays as it is.
        guard: The guard that moderates.

    Returns:
        A client of the same class that shares its connections.

    Raises:
        UsageError: For an object of another class.
    """
    anthropic = sys.modules.get("anthropic")
    if anthropic is None or not isinstance(client, (anthropic.Anthropic, anthropic.AsyncAnthropic)):
        raise UsageError(f"expected an Anthropic or AsyncAnthropic client, got {type(client).__name__}")
    guarded: Any = client.copy()
    streams = (anthropic.Stream, anthropic.AsyncStream)
    guard_resource(guarded.messages, guard=guard, api=MessagesApi(), streams=streams)
    for path, names in REFUSED.items():
        resource = guarded.messages if path else guarded
        for name in names:
            if hasattr(type(resource), name):
                resource.__dict__[name] = Refused(f"{path}.{name}".lstrip("."), use="messages.create")
    copy = update_wrapper(partial(_copied, client, guard), client.copy)
    guarded.copy = guarded.with_options = copy
    return guarded  # type: ignore[no-any-return]  # a copy is of the same class


def _copied(client: Any, guard: Guard, *args: Any, **kwargs: Any) -> Any:
    return guarded_client(client.copy(*args, **kwargs), guard=guard)
