"""Messages in one piece: every content block moderated, what surrounds them kept."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.integrations.completions import answer as answers
from guardrail.integrations.completions.answer import ModeratedAnswer
from guardrail.integrations.completions.event_stream import OnBlocked
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.report import with_report
from guardrail.integrations.completions.sanitize import strings_in_json
from guardrail.integrations.strict_json import JsonObject, MalformedError, string_in

__all__ = ["PROSE", "MessageContext", "ModeratedMessage", "moderate_message", "refusal_block", "refused"]

PROSE = {"text": "text", "thinking": "thinking"}
"""Kinds of blocks that people read, and the field that holds their text."""
CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")
RESULT = "_tool_result"
"""Ends the kinds of blocks that hold what a tool of the provider found: words of third parties."""
REFUSAL = "refusal"


class MessageContext(answers.CompletionContext):
    """The same for messages."""

    __slots__ = ()

    @classmethod
    def read(cls, content: JsonObject) -> MessageContext:
        config = content.get("output_config")
        wanted = (config.get("format") if isinstance(config, dict) else None) or content.get("output_format")
        return cls(content, isinstance(wanted, dict) and wanted.get("type") == "json_schema")


async def moderate_message(
    message: JsonObject,
    *,
    moderator: Moderator,
    asked: MessageContext | None = None,
    on_blocked: OnBlocked | None = None,
) -> JsonObject:
    """The message with its texts moderated; MalformedError if it has another shape.

    Where a segment is blocked, what stands before it stays, a refusal stands in its place, and nothing
    follows: the message stops with the reason "refusal". ``on_blocked`` is called there; what it raises comes
    in place of the answer.
    """
    answer = ModeratedMessage(moderator, asked or MessageContext())
    try:
        content: list[JsonObject] = []
        for block in _blocks_in(message):
            shown = await answer.block(block)
            content += [] if shown is None else [shown]
            if answer.blocked:
                if on_blocked is not None:
                    on_blocked()
                add_refusal(content, shown, moderator.refusal)
                break
        await answer.end()
        if answer.blocked and moderator.guard.policy.block == "whole":
            content = [refusal_block(moderator.refusal)]
        framed = await answer.frame(message, content)
        return with_report(framed | (refused(message, moderator.refusal) if answer.blocked else {}))
    finally:
        await answer.close()


class ModeratedMessage(ModeratedAnswer):
    """One message while it is moderated."""

    document_kind = "text"

    async def frame(self, message: JsonObject, content: list[JsonObject]) -> JsonObject:
        """The message around its blocks. What the client said itself is repeated as it is."""
        identity = await self.surroundings.id_of(message.get("id"), "msg_")
        return await self.surroundings.fields(message, {"id": identity, "content": content}, repeats=True)

    async def block(self, block: JsonObject) -> JsonObject | None:
        """A block that is there as a whole; None if nothing of it may be shown."""
        kind = block.get("type")
        if not isinstance(kind, str) or kind not in PROSE:
            return await self.other_block(block, [])
        shown = await self.prose(kind, string_in(block, PROSE[kind]))
        if shown is None:
            return None
        framed = await self.block_frame(block, shown)
        if self.blocked:  # what comes behind the text does not come
            return framed | ({"signature": ""} if "signature" in framed else {})
        if block.get("citations"):
            framed["citations"] = await self.citations(block["citations"])
        return framed

    async def block_frame(self, block: JsonObject, text: str) -> JsonObject:
        """A block of prose with this text and without citations."""
        emptied = {"citations": block.get("citations") and []}
        return await self.surroundings.fields(block, {PROSE[block["type"]]: text, **emptied})

    async def citations(self, listed: object) -> list[JsonObject]:
        """The citations that are not toxic. They point into the documents, so that they fit any text."""
        found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return [each for each in found if await self.surroundings.is_clean(each)]

    async def other_block(self, block: JsonObject, deltas: Sequence[JsonObject]) -> JsonObject | None:
        """A call of a tool, with the ``deltas`` in which its input came, or any other block; None if toxic.

        What a tool of the provider found is emptied if it is toxic, and the message continues.
        """
        kind = str(block.get("type"))
        ids = {name: await self.surroundings.id_of(block[name], f"{name}_") for name in block if _is_id(name)}
        if kind.endswith(RESULT):
            clean = await self.surroundings.is_clean(block.get("content"))
            content = (
                block.get("content") if clean else {"type": f"{kind}_error", "error_code": "unavailable"}
            )
            return await self.surroundings.fields(block, ids | {"content": content})
        spelled = "".join(delta["partial_json"] for delta in deltas)
        rest = {name: value for name, value in block.items() if name not in ids}
        strings = [*self.surroundings.strings(rest), *strings_in_json(spelled)]
        return block | ids if await self.is_clean_call(strings) else None


def refused(message: JsonObject, refusal: str) -> JsonObject:
    """The fields of a message, or of its end, that say why it stops."""
    details = {"type": REFUSAL, "category": None, "explanation": refusal}
    return {"stop_reason": REFUSAL, "stop_sequence": None, "stop_details": details}


def add_refusal(content: list[JsonObject], shown: JsonObject | None, refusal: str) -> None:
    """Puts the refusal where the blocked segment was: behind what is shown of a text, or in its own block."""
    if shown is not None and shown.get("type") == "text":
        content[-1] = content[-1] | {"text": content[-1]["text"] + refusal}
    else:
        content.append(refusal_block(refusal))


def refusal_block(refusal: str) -> JsonObject:
    """A block of its own that says that nothing follows."""
    return {"type": "text", "text": refusal}


def _blocks_in(message: JsonObject) -> list[JsonObject]:
    """The blocks of a message; MalformedError if it has another shape."""
    content = message.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise MalformedError("no list of content blocks")
    return content


def _is_id(name: str) -> bool:
    return name in ("id", "tool_use_id", "file_id")
