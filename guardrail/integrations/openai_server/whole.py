"""Answers that come in one piece: every choice moderated, all choices at the same time."""

from __future__ import annotations

import asyncio

from guardrail.integrations.openai_server.answers import (
    BLOCKED,
    CHAT,
    Calls,
    Kind,
    envelope,
    finish_reason,
    index_of,
    object_of,
    plain,
)
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.wire import JsonObject, MalformedError, numbers
from guardrail.outcome import Action

__all__ = ["moderated"]


async def moderated(
    answer: JsonObject, *, kind: Kind, moderator: Moderator, allowed: tuple[str, ...]
) -> JsonObject:
    """The answer built anew from what was moderated; MalformedError where it has another shape."""
    choices = await asyncio.gather(
        *(_choice(choice, kind=kind, moderator=moderator, allowed=allowed) for choice in kind.choices(answer))
    )
    result = envelope(answer, kind=kind.whole) | {"choices": choices}
    if isinstance(answer.get("usage"), dict):
        result["usage"] = numbers(answer["usage"])
    return result


async def _choice(
    choice: JsonObject, *, kind: Kind, moderator: Moderator, allowed: tuple[str, ...]
) -> JsonObject:
    source = object_of(choice, kind.message)
    calls = Calls()
    calls.collect(source)
    reason = finish_reason(choice.get("finish_reason"))
    fields: JsonObject = {"role": "assistant"} if kind is CHAT else {}
    blocked = False
    for name in (*allowed, *kind.fields):
        value = source.get(name)
        if isinstance(value, str) and not blocked:
            outcome = await moderator.prose(value)
            blocked = outcome.action is Action.BLOCKED
            fields[name] = outcome.text
        elif name in kind.fields:
            if not (value is None or isinstance(value, str)):
                raise MalformedError(f"{name} is not a string")
            fields[name] = None if kind is CHAT else ""
        elif plain(value):
            fields[name] = value
    if not blocked:
        blocked = not await moderator.is_clean(calls.strings())
    if not blocked:
        fields |= calls.fields(streamed=False)
    inner = fields if kind.message is None else {kind.message: fields}
    return {
        "index": index_of(choice),
        **inner,
        "finish_reason": BLOCKED if blocked else reason,
        "logprobs": None,
    }
