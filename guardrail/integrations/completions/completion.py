"""Completions in one piece: taken apart, every choice moderated, and built anew."""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

from guardrail.integrations.completions.content import (
    ContentPart,
    is_clean_document,
    is_readable,
    merged,
    parts_in,
)
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.report import with_report
from guardrail.integrations.completions.sanitize import new_id, only_numbers
from guardrail.integrations.completions.tool_calls import ToolCalls
from guardrail.integrations.strict_json import (
    JsonObject,
    MalformedError,
    index_in,
    number_in,
    object_in,
)
from guardrail.outcome import Action

__all__ = [
    "BLOCKED",
    "CHAT",
    "DOCUMENT",
    "ENVELOPE",
    "KNOWN_FIELDS",
    "TEXT",
    "AnswerShape",
    "CompletionKind",
    "envelope",
    "error_in",
    "finish_reason",
    "holds_no_text",
    "message_of",
    "moderate_completion",
]

BLOCKED = "content_filter"
FINISH_REASONS = {
    **dict.fromkeys(("stop", "complete", "end_turn", "eos", "eos_token", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_length", "max_tokens", "model_length"), "length"),
    **dict.fromkeys(("tool_calls", "tool_use"), "tool_calls"),
    "function_call": "function_call",
    **dict.fromkeys((BLOCKED, "recitation", "safety", "sensitive"), BLOCKED),
}
"""Why a choice is over, as upstreams name it in lower case, and as OpenAI does."""
KNOWN_FIELDS = frozenset(
    {
        *("annotations", "content", "delta", "finish_reason", "function_call", "index", "logprobs"),
        *("message", "refusal", "role", "text", "tool_calls"),
    }
)
"""Fields that have a meaning here, so that no setting decides about them."""
DOCUMENT = "content"
ENVELOPE = ("id", "model", "system_fingerprint", "service_tier")
"""Identifiers that surround the choices."""


@dataclass(frozen=True, slots=True)
class CompletionKind:
    """One of the two sorts of answers: where a choice keeps its text, and what the answer calls itself."""

    whole: str
    chunk: str
    id_prefix: str
    fields: tuple[str, ...]
    message: str | None
    delta: str | None

    def choices(self, answer: JsonObject) -> Iterator[tuple[int, JsonObject]]:
        """The choices of an answer or chunk, each under an index of its own; one without has its position.

        MalformedError if one cannot be read, behind the others: these are not to suffer for it.
        """
        found = answer.get("choices")
        if not isinstance(found, list):
            raise MalformedError("no list of choices")
        seen: set[int] = set()
        problem: MalformedError | None = None
        for position, choice in enumerate(found):
            if choice is None:
                continue
            try:
                index = _index_of_choice(choice, position, seen)
            except MalformedError as error:
                problem = problem or error
            else:
                yield index, choice
        if problem is not None:
            raise problem


CHAT = CompletionKind(
    "chat.completion", "chat.completion.chunk", "chatcmpl-", ("content", "refusal"), "message", "delta"
)


TEXT = CompletionKind("text_completion", "text_completion", "cmpl-", ("text",), None, None)


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """How an answer is read: its kind, the fields that a setting allows, whether its content is JSON, and
    the model that the client asked for, None if it named none.

    JSON that was asked for (``response_format``) is not prose: it is judged whole, as a reader of it decodes
    it, and never rewritten.
    """

    kind: CompletionKind
    allowed: tuple[str, ...] = ()
    document: bool = False
    model: str | None = field(default=None, repr=False)

    @property
    def prose(self) -> tuple[str, ...]:
        """The fields that hold prose."""
        return (*self.allowed, *(name for name in self.kind.fields if not self.is_document(name)))

    def is_document(self, name: str) -> bool:
        """True for the field that holds JSON."""
        return self.document and name == DOCUMENT


def _index_of_choice(choice: object, position: int, seen: set[int]) -> int:
    if not isinstance(choice, dict):
        raise MalformedError("a choice is not an object")
    index = index_in(choice, default=position)
    if index in seen:
        raise MalformedError("choices share an index")
    seen.add(index)
    return index


def message_of(choice: JsonObject, kind: CompletionKind, *, streamed: bool) -> JsonObject:
    """What a choice says: its message, or in a stream its delta.

    Some upstreams give the one in place of the other, or the text of a chat by itself.
    """
    if kind is not CHAT:
        return choice
    for name in (CHAT.delta, CHAT.message) if streamed else (CHAT.message, CHAT.delta):
        if found := object_in(choice, name):
            return found
    return {DOCUMENT: choice["text"]} if choice.get("text") else {}


def envelope(answer: JsonObject, *, shape: AnswerShape, streamed: bool, clean: Container[str]) -> JsonObject:
    """What surrounds the choices, with no string that is not clean.

    In place of an answer's id stands one of ours, in place of a model's name the one that was asked for.
    """
    kind = shape.kind
    return {
        "id": new_id(kind.id_prefix),
        "object": kind.chunk if streamed else kind.whole,
        "created": number_in(answer.get("created")) or 0,
        "model": shape.model,
        **{name: value for name in ENVELOPE if isinstance(value := answer.get(name), str) and value in clean},
    }


def finish_reason(reason: object) -> str | None:
    """The reason as OpenAI names it; None for anything else and for a reason that is not known here."""
    if not isinstance(reason, str):
        return None
    name = reason.strip().rpartition(".")[2]  # also "FinishReason.STOP"
    return FINISH_REASONS.get(name.lower().replace("-", "_"))


def error_in(answer: JsonObject) -> object:
    """The error in an answer that was to hold choices, in one of the shapes that upstreams use, or None."""
    if not answer.get("choices") and "error" in (answer.get("object"), answer.get("type")):
        return answer.get("error") or answer
    error = answer.get("error")
    return None if not error or (isinstance(error, dict) and not any(error.values())) else error


def holds_no_text(value: Any) -> bool:
    """True for a value that holds no text at all."""
    return isinstance(value, (bool, int, float))


async def moderate_completion(answer: JsonObject, *, shape: AnswerShape, moderator: Moderator) -> JsonObject:
    """The answer built anew from what was moderated; MalformedError if it has another shape."""
    choices = list(shape.kind.choices(answer))
    clean = await moderator.identifiers([*map(answer.get, ENVELOPE), answer.get("usage")])
    result = envelope(answer, shape=shape, streamed=False, clean=clean)
    result["choices"] = await asyncio.gather(
        *(_choice(index, choice, shape, moderator) for index, choice in choices)
    )
    if isinstance(answer.get("usage"), dict):
        result["usage"] = only_numbers(answer["usage"], clean=clean)
    return with_report(result)


async def _choice(index: int, choice: JsonObject, shape: AnswerShape, moderator: Moderator) -> JsonObject:
    kind = shape.kind
    source = message_of(choice, kind, streamed=False)
    calls = ToolCalls()
    calls.collect(source, streamed=False)
    fields: JsonObject = {"role": "assistant"} if kind is CHAT else {}
    blocked = await _prose(source, fields, shape, moderator)
    if shape.document and not blocked:
        blocked = not await is_clean_document(merged(parts_in(source, DOCUMENT)), moderator)
        fields[DOCUMENT] = moderator.refusal if blocked else source.get(DOCUMENT)
    blocked = blocked or not await calls.are_clean(moderator)
    if not blocked:
        fields |= calls.fields(streamed=False)
    return {
        "index": index,
        **(fields if kind.message is None else {kind.message: fields}),
        "finish_reason": BLOCKED if blocked else finish_reason(choice.get("finish_reason")) or "stop",
        "logprobs": None,
    }


async def _prose(source: JsonObject, fields: JsonObject, shape: AnswerShape, moderator: Moderator) -> bool:
    """Fills the fields of prose; true if one was blocked, behind which the others are left empty."""
    blocked = False
    fields |= dict.fromkeys(shape.kind.fields, None if shape.kind is CHAT else "")
    for name in shape.prose:
        value = source.get(name)
        if name in shape.allowed and not is_readable(value):
            fields |= {name: value} if holds_no_text(value) else {}
        elif blocked:
            continue
        elif parts := parts_in(source, name):
            fields[name], blocked = await _moderated_parts(parts, moderator)
        else:
            fields[name] = value or fields.get(name, value)
    return blocked


async def _moderated_parts(parts: list[ContentPart], moderator: Moderator) -> tuple[Any, bool]:
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
