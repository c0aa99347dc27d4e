"""Answers that come in one piece: every choice moderated, all choices at the same time."""

from __future__ import annotations

import asyncio

from guardrail.integrations.openai_server.answers import (
    BLOCKED,
    CHAT,
    DOCUMENT,
    ENVELOPE,
    Calls,
    Terms,
    envelope,
    finish_reason,
    index_of,
    object_of,
    plain,
    string_of,
)
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.wire import JsonObject, numbers, strings_of
from guardrail.outcome import Action

__all__ = ["moderated"]


async def moderated(answer: JsonObject, *, terms: Terms, moderator: Moderator) -> JsonObject:
    """The answer built anew from what was moderated; MalformedError where it has another shape."""
    choices = terms.kind.choices(answer)
    clean = await moderator.identifiers([*map(answer.get, ENVELOPE), answer.get("usage")])
    result = envelope(answer, terms=terms, streamed=False, clean=clean)
    result["choices"] = await asyncio.gather(*(_choice(choice, terms, moderator) for choice in choices))
    if isinstance(answer.get("usage"), dict):
        result["usage"] = numbers(answer["usage"], clean=clean)
    return result


async def _choice(choice: JsonObject, terms: Terms, moderator: Moderator) -> JsonObject:
    kind = terms.kind
    source = object_of(choice, kind.message)
    calls = Calls()
    calls.collect(source, streamed=False)
    fields: JsonObject = {"role": "assistant"} if kind is CHAT else {}
    blocked = await _prose(source, fields, terms, moderator)
    if terms.document and not blocked:
        document = string_of(source, DOCUMENT)
        blocked = not await moderator.is_clean(strings_of(document))
        fields[DOCUMENT] = moderator.refusal if blocked else source.get(DOCUMENT)
    blocked = blocked or not await moderator.allows(calls)
    if not blocked:
        fields |= calls.fields(streamed=False)
    return {
        "index": index_of(choice),
        **(fields if kind.message is None else {kind.message: fields}),
        "finish_reason": BLOCKED if blocked else finish_reason(choice.get("finish_reason")),
        "logprobs": None,
    }


async def _prose(source: JsonObject, fields: JsonObject, terms: Terms, moderator: Moderator) -> bool:
    """Fills the fields of prose; true where one was blocked, behind which the others are left empty."""
    blocked = False
    fields |= dict.fromkeys(terms.kind.fields, None if terms.kind is CHAT else "")
    for name in terms.prose:
        value = source.get(name)
        if name in terms.allowed and not isinstance(value, str):
            fields |= {name: value} if plain(value) else {}
        elif (text := string_of(source, name)) and not blocked:
            outcome = await moderator.prose(text)
            fields[name] = outcome.text
            blocked = outcome.action is Action.BLOCKED
        elif not blocked:
            fields[name] = value
    return blocked
