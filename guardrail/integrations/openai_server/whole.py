"""Answers that come in one piece: every choice moderated, all choices at the same time."""

from __future__ import annotations

import asyncio
from typing import Any

from guardrail.integrations.openai_server.answers import (
    BLOCKED,
    CHAT,
    DOCUMENT,
    ENVELOPE,
    Calls,
    Terms,
    envelope,
    finish_reason,
    message_of,
    plain,
)
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.parts import Part, is_readable, joined, parts_of
from guardrail.integrations.openai_server.wire import JsonObject, numbers
from guardrail.outcome import Action

__all__ = ["moderated"]


async def moderated(answer: JsonObject, *, terms: Terms, moderator: Moderator) -> JsonObject:
    """The answer built anew from what was moderated; MalformedError where it has another shape."""
    choices = list(terms.kind.choices(answer))
    clean = await moderator.identifiers([*map(answer.get, ENVELOPE), answer.get("usage")])
    result = envelope(answer, terms=terms, streamed=False, clean=clean)
    result["choices"] = await asyncio.gather(
        *(_choice(index, choice, terms, moderator) for index, choice in choices)
    )
    if isinstance(answer.get("usage"), dict):
        result["usage"] = numbers(answer["usage"], clean=clean)
    return result


async def _choice(index: int, choice: JsonObject, terms: Terms, moderator: Moderator) -> JsonObject:
    kind = terms.kind
    source = message_of(choice, kind, streamed=False)
    calls = Calls()
    calls.collect(source, streamed=False)
    fields: JsonObject = {"role": "assistant"} if kind is CHAT else {}
    blocked = await _prose(source, fields, terms, moderator)
    if terms.document and not blocked:
        blocked = not await moderator.is_clean_document(joined(parts_of(source, DOCUMENT)))
        fields[DOCUMENT] = moderator.refusal if blocked else source.get(DOCUMENT)
    blocked = blocked or not await moderator.allows(calls)
    if not blocked:
        fields |= calls.fields(streamed=False)
    return {
        "index": index,
        **(fields if kind.message is None else {kind.message: fields}),
        "finish_reason": BLOCKED if blocked else finish_reason(choice.get("finish_reason")) or "stop",
        "logprobs": None,
    }


async def _prose(source: JsonObject, fields: JsonObject, terms: Terms, moderator: Moderator) -> bool:
    """Fills the fields of prose; true where one was blocked, behind which the others are left empty."""
    blocked = False
    fields |= dict.fromkeys(terms.kind.fields, None if terms.kind is CHAT else "")
    for name in terms.prose:
        value = source.get(name)
        if name in terms.allowed and not is_readable(value):
            fields |= {name: value} if plain(value) else {}
        elif blocked:
            continue
        elif parts := parts_of(source, name):
            fields[name], blocked = await _moderated_parts(parts, moderator)
        else:
            fields[name] = value or fields.get(name, value)
    return blocked


async def _moderated_parts(parts: list[Part], moderator: Moderator) -> tuple[Any, bool]:
    """A field's value, and whether something in it was blocked, behind which nothing of it is shown."""
    first = parts[0]
    if not first.is_listed:
        outcome = await moderator.prose(*first.texts)
        return outcome.text, outcome.action is Action.BLOCKED
    if not await moderator.is_harmless([part.frame for part in parts]):
        return moderator.refusal, True
    passages = await moderator.passages([text for part in parts for text in part.texts])
    released, shown, used = iter(passages.texts), [], 0
    for part in parts:
        shown += part.filled([next(released) for _ in part.texts])
        used += len(part.texts)
        if passages.blocked_at is not None and used > passages.blocked_at:
            return shown, True
    return shown, False
