"""Responses in one piece: every item moderated, what surrounds them kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from guardrail.integrations.completions import answer as answers
from guardrail.integrations.completions.answer import ModeratedAnswer
from guardrail.integrations.completions.event_stream import OnBlocked
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.report import with_report
from guardrail.integrations.completions.sanitize import new_id, strings_in, strings_in_json
from guardrail.integrations.responses.annotations import Offsets
from guardrail.integrations.strict_json import JsonObject, MalformedError, string_in

__all__ = [
    "LISTS",
    "PROSE",
    "ModeratedResponse",
    "ResponseContext",
    "is_prose_item",
    "list_in",
    "moderate_response",
    "refusal_message",
    "refusal_part",
]

PROSE = {"output_text": "text", "refusal": "refusal", "summary_text": "text", "reasoning_text": "text"}
"""Kinds of parts that people read, and the field that holds their text."""
LISTS = {"message": ("content",), "reasoning": ("summary", "content")}
"""Kinds of items that hold such parts, and where."""
THIRD_PARTIES = ("results", "output", "outputs", "tools", "error")
"""Fields of a tool's item that others wrote: emptied if they are toxic, and the answer continues."""
JSON_FORMATS = ("json_object", "json_schema")


class ResponseContext(answers.CompletionContext):
    """The same for responses."""

    __slots__ = ()

    @classmethod
    def read(cls, content: JsonObject) -> ResponseContext:
        text = content.get("text")
        wanted = text.get("format") if isinstance(text, dict) else None
        return cls(content, isinstance(wanted, dict) and wanted.get("type") in JSON_FORMATS)


async def moderate_response(
    response: JsonObject,
    *,
    moderator: Moderator,
    asked: ResponseContext | None = None,
    on_blocked: OnBlocked | None = None,
) -> JsonObject:
    """The response with its texts moderated; MalformedError if it has another shape.

    Where a segment is blocked, what stands before it stays, a refusal stands in its place, and nothing
    follows. ``on_blocked`` is called there; what it raises comes in place of the answer.
    """
    answer = ModeratedResponse(moderator, asked or ResponseContext())
    try:
        output: list[JsonObject] = []
        for item in items_in(response):
            shown = await answer.item(item)
            output += [] if shown is None else [shown]
            if answer.blocked:
                if on_blocked is not None:
                    on_blocked()
                add_refusal(output, item, moderator.refusal)
                break
        await answer.end()
        if answer.blocked and moderator.guard.policy.block == "whole":
            output = [refusal_message(moderator.refusal)]
        return with_report(await answer.frame(response, output))
    finally:
        await answer.close()


class ModeratedResponse(ModeratedAnswer):
    """One response while it is moderated."""

    document_kind = "output_text"

    async def frame(self, response: JsonObject, output: list[JsonObject] | None) -> JsonObject:
        """The response around its items. What the client said itself is repeated as it is."""
        replaced: JsonObject = {
            "id": await self.surroundings.id_of(response.get("id"), "resp_"),
            "error": await self._error(response.get("error")),
            "output_text": _text_of(output or ()),  # not of the API itself; some servers add it
        }
        framed = await self.surroundings.fields(response, replaced | {"output": output}, repeats=True)
        if self.blocked and response.get("status") == "incomplete":
            framed |= {"status": "completed", "incomplete_details": None}
        return framed

    async def _error(self, error: object) -> object:
        if await self.surroundings.is_clean(error):
            return error
        return {"code": "server_error", "message": "the upstream's message is withheld"}

    async def item(self, item: JsonObject) -> JsonObject | None:
        """An item that is there as a whole; None if nothing of it may be shown."""
        if not is_prose_item(item):
            return await self.tool_item(item, [])
        shown = await self.item_frame(item)
        for name in LISTS[item["type"]]:
            for part in list_in(item, name):
                shown[name] += [] if self.blocked else await self._parts(part)
        if self.blocked and "status" in shown:
            shown["status"] = "incomplete"
        return shown

    async def item_frame(self, item: JsonObject) -> JsonObject:
        """A message or reasoning without its parts."""
        lists: JsonObject = {name: [] for name in LISTS[item["type"]] if isinstance(item.get(name), list)}
        return await self.surroundings.fields(
            item, {"id": await self.surroundings.id_of(item.get("id"), "msg_"), **lists}
        )

    async def part_frame(self, part: JsonObject, text: str) -> JsonObject:
        """A part with this text and without annotations and log probabilities, which spell the one before."""
        emptied = {name: part.get(name) and [] for name in ("annotations", "logprobs")}
        return await self.surroundings.fields(part, {PROSE[part["type"]]: text, **emptied})

    async def annotations(self, listed: object, before: str, after: str) -> list[JsonObject]:
        """The annotations of a text that was ``before`` and is ``after`` now, as far as they fit."""
        clean = [each for each in list_in({"": listed}, "") if await self.surroundings.is_clean(each)]
        if before == after or not clean:
            return clean
        offsets = Offsets(before, after)
        return [moved for each in clean if (moved := offsets.moved(each)) is not None]

    async def _parts(self, part: JsonObject) -> list[JsonObject]:
        """The part in a list; an empty one if nothing of it may be shown."""
        kind = part.get("type")
        if not isinstance(kind, str) or kind not in PROSE:
            self.blocked = not await self.surroundings.is_clean(part)
            return [] if self.blocked else [part]
        text = string_in(part, PROSE[kind])
        after = await self.prose(kind, text)
        if after is None:
            return []  # an empty text is not the JSON that was asked for
        shown = await self.part_frame(part, after)
        if "annotations" in part:
            shown["annotations"] = await self.annotations(part["annotations"], text, after)
        return [shown]

    async def tool_item(self, item: JsonObject, events: Sequence[JsonObject]) -> JsonObject | None:
        """A call of a tool, or what came of one, and the ``events`` in which it came; None if it is toxic."""
        own = {name: value for name, value in item.items() if name not in THIRD_PARTIES}
        spelled = "".join(text for event in events for text in strings_in(event.get("delta")))
        others = [{**event, "delta": None, "item": None} for event in events]
        said = map(self.surroundings.strings, map(_without_ids, [own, *others]))
        if not await self.is_clean_call([*chain.from_iterable(said), *strings_in_json(spelled)]):
            return None
        shown: JsonObject = dict(item)
        for name, value in item.items():
            if _is_id(name):
                shown[name] = await self.surroundings.id_of(value, f"{name}_")
            elif name in THIRD_PARTIES and not await self.surroundings.is_clean(value):
                shown[name] = [] if isinstance(value, list) else None
        return shown


def _is_id(name: str) -> bool:
    return name == "id" or name.endswith("_id")


def _without_ids(part: JsonObject) -> JsonObject:
    return {name: value for name, value in part.items() if not _is_id(name)}


def _text_of(output: Sequence[JsonObject]) -> str:
    parts = [part for item in output if item.get("type") == "message" for part in list_in(item, "content")]
    return "".join(string_in(part, "text") for part in parts if part.get("type") == "output_text")


def is_prose_item(item: JsonObject) -> bool:
    """True for a message or reasoning."""
    kind = item.get("type")
    return isinstance(kind, str) and kind in LISTS


def list_in(part: JsonObject, name: str) -> list[JsonObject]:
    """The objects in a list, none if there is no list."""
    found = part.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def items_in(response: JsonObject) -> list[JsonObject]:
    """The items of a response; MalformedError if it has another shape."""
    output = response.get("output")
    if output is None and response.get("status") in ("queued", "in_progress", "failed", "cancelled"):
        return []
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        raise MalformedError("no list of output items")
    return output


def add_refusal(output: list[JsonObject], item: JsonObject, refusal: str) -> None:
    """Says behind the items that nothing follows: in the message that was blocked, or in one of its own."""
    if output and item.get("type") == "message" and output[-1].get("type") == "message":
        output[-1]["content"] = [*output[-1]["content"], refusal_part(refusal)]
    else:
        output.append(refusal_message(refusal))


def refusal_part(refusal: str) -> JsonObject:
    """The part of a message that says that nothing follows."""
    return {"type": "refusal", "refusal": refusal}


def refusal_message(refusal: str) -> JsonObject:
    """A message of its own that says it."""
    return {
        "id": new_id("msg_"),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [refusal_part(refusal)],
    }
