"""OpenAI's client with moderated answers: ``guard.openai(client)``."""

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
from guardrail.integrations.responses.response import ResponseContext, moderate_response
from guardrail.integrations.responses.stream import ResponseStream
from guardrail.integrations.strict_json import JsonObject

__all__ = ["guarded_client"]

C = TypeVar("C")

GUARDED: dict[str, tuple[str, ...]] = {
    "chat.completions": ("create", "parse", "retrieve"),
    "completions": ("create",),
}
"""Methods whose answers are moderated; ``responses`` is as a whole."""
RAW = ("with_raw_response", "with_streaming_response")
REFUSED: dict[str, tuple[str, ...]] = {
    "": (*RAW, "beta", "conversations", "realtime"),
    "chat": RAW,
    "chat.completions": (*RAW, "list", "update", "messages"),
    "completions": RAW,
    "responses": (*RAW, "connect"),
}
"""Ways to answers that the guard has not seen."""


def guarded_client(client: C, *, guard: Guard) -> C:
    """A copy of a client whose answers a guard moderates.

    Args:
        client: An OpenAI or AsyncOpenAI, or an instance of a class derived from one; it stays as it is.
        guard: The guard that moderates.

    Returns:
        A client of the same class that shares its connections.

    Raises:
        UsageError: For an object of another class.
    """
    openai = sys.modules.get("openai")
    if openai is None or not isinstance(client, (openai.OpenAI, openai.AsyncOpenAI)):
        raise UsageError(f"expected an OpenAI or AsyncOpenAI client, got {type(client).__name__}")
    guarded: Any = client.copy()
    for path, names in GUARDED.items():
        resource = _resource(guarded, path)
        for name in names:
            setattr(resource, name, guard.wrap(getattr(resource, name)))
    streams = (openai.Stream, openai.AsyncStream)
    guard_resource(guarded.responses, guard=guard, api=ResponsesApi(), streams=streams)
    for path, names in REFUSED.items():
        resource = _resource(guarded, path)
        for name in names:
            if hasattr(type(resource), name):
                resource.__dict__[name] = Refused(
                    f"{path}.{name}".lstrip("."), use="chat.completions.create or responses.create"
                )
    copy = update_wrapper(partial(_copied, client, guard), client.copy)
    guarded.copy = guarded.with_options = copy
    return guarded  # type: ignore[no-any-return]  # a copy is of the same class


class ResponsesApi:
    """The Responses API as it is moderated."""

    def holds(self, answer: JsonObject) -> bool:
        return answer.get("object") == "response"

    async def whole(
        self,
        answer: JsonObject,
        asked: JsonObject,
        moderator: Moderator,
        on_blocked: Callable[[], object],
    ) -> JsonObject:
        return await moderate_response(
            answer, moderator=moderator, asked=ResponseContext.read(asked), on_blocked=on_blocked
        )

    def stream(
        self, asked: JsonObject, moderator: Moderator, write: Any, on_blocked: Callable[[], object]
    ) -> EventStream:
        return ResponseStream(
            moderator=moderator, write=write, asked=ResponseContext.read(asked), on_blocked=on_blocked
        )


def _copied(client: Any, guard: Guard, *args: Any, **kwargs: Any) -> Any:
    return guarded_client(client.copy(*args, **kwargs), guard=guard)


def _resource(client: Any, path: str) -> Any:
    found = client
    for name in path.split(".") if path else ():
        found = getattr(found, name)
    return found
