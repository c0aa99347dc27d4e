"""Streamed messages: events in, moderated events out, in their order."""

from __future__ import annotations

from dataclasses import dataclass, field

from guardrail.integrations.completions.event_stream import EventStream, OnBlocked
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.report import with_report
from guardrail.integrations.completions.voice import Emit, EventText, HeldDocument, ProseEvents
from guardrail.integrations.messages.message import (
    PROSE,
    MessageContext,
    ModeratedMessage,
    refusal_block,
    refused,
)
from guardrail.integrations.strict_json import JsonObject, MalformedError, object_in, string_in

__all__ = ["MessageStream"]

START, DELTA, STOP = "content_block_start", "content_block_delta", "content_block_stop"
DELTAS = {"text": "text_delta", "thinking": "thinking_delta"}
"""Kinds of blocks with prose, and the deltas that bring it."""
BESIDE = ("citations_delta", "signature_delta")
"""Deltas that stand next to the prose."""
INPUT = "input_json_delta"
MAX_INDEX = 1024


@dataclass(slots=True)
class Block:
    """One content block. One without prose is held until it is whole."""

    index: int
    frame: JsonObject = field(repr=False)
    text: EventText | None = None
    deltas: list[JsonObject] = field(default_factory=list, repr=False)
    is_announced: bool = False
    is_over: bool = False

    @property
    def kind(self) -> str:
        """What it holds."""
        return str(self.frame.get("type"))

    def event(self, kind: str, **fields: JsonObject) -> JsonObject:
        """An event of this block."""
        return {"type": kind, "index": self.index, **fields}

    def piece(self, text: str) -> JsonObject:
        """The event that brings a piece of its prose."""
        return self.event(DELTA, delta={"type": DELTAS[self.kind], PROSE[self.kind]: text})


class MessageStream(EventStream):
    """One streamed message.

    ``write`` gets one event at a time. Where a segment is blocked, the refusal stands in its place, and
    nothing follows but the end, with the reason "refusal" and with what the upstream used.
    """

    def __init__(
        self,
        *,
        moderator: Moderator,
        write: Emit,
        asked: MessageContext | None = None,
        on_blocked: OnBlocked | None = None,
    ) -> None:
        super().__init__(write, on_blocked=on_blocked)
        self._moderator = moderator
        self._answer = ModeratedMessage(moderator, asked or MessageContext())
        self._blocks: dict[int, Block] = {}
        self._is_refused = False

    async def break_off(self) -> None:
        """No more can be read: the text so far is moderated and written."""
        for block in self._blocks.values():
            if isinstance(block.text, ProseEvents) and not block.is_over and not self._answer.blocked:
                await block.text.finish()

    async def close(self) -> None:
        """Drops what was not written."""
        await self._answer.close()

    async def _take(self, event: JsonObject) -> None:
        kind = event["type"]
        if kind == "ping":
            await self._write({"type": kind})
        elif kind == "message_stop":
            await self._answer.end()
            self.is_over = True
            await self._write(with_report({"type": kind}))
        elif kind == "message_delta":
            await self._end(event)
        elif not self._answer.blocked:
            await self._take_content(event)
        if self._answer.blocked:
            await self._refuse()

    async def _take_content(self, event: JsonObject) -> None:
        kind = event["type"]
        if kind == "message_start":
            message = await self._answer.frame(object_in(event, "message"), [])
            await self._write({"type": kind, "message": message})
        elif kind == START:
            await self._start(_index(event), object_in(event, "content_block"))
        elif kind in (DELTA, STOP):
            block = self._blocks.get(_index(event))
            if block is None:
                raise MalformedError("an event of a block that did not begin")
            if block.is_over:
                return
            await (self._stop(block) if kind == STOP else self._add(block, object_in(event, "delta")))
        elif "delta" not in event and await self._answer.surroundings.is_clean(event):
            await self._write(event)

    async def _start(self, index: int, frame: JsonObject) -> None:
        block = self._blocks[index] = Block(index, frame)
        if block.kind not in PROSE:
            return
        text = string_in(frame, PROSE[block.kind])
        block.frame = await self._answer.block_frame(frame, "")
        if self._answer.is_document(block.kind):
            block.text = HeldDocument(self._moderator, emit=self._write)
            await block.text.accompany(block.event(START, content_block=block.frame))
        else:
            block.text = ProseEvents(self._answer.voice(block.kind), cut=_cut, emit=self._write)
            block.is_announced = True
            await self._write(block.event(START, content_block=block.frame))
        if text:
            await self._feed(block, text)

    async def _add(self, block: Block, delta: JsonObject) -> None:
        if block.text is None:
            if delta.get("type") == INPUT:
                block.deltas.append({"type": INPUT, "partial_json": string_in(delta, "partial_json")})
        elif delta.get("type") == DELTAS[block.kind]:
            await self._feed(block, string_in(delta, PROSE[block.kind]))
        elif delta.get("type") in BESIDE and await self._answer.surroundings.is_clean(delta):
            await block.text.accompany(block.event(DELTA, delta=delta))

    async def _feed(self, block: Block, text: str) -> None:
        assert block.text is not None
        await block.text.feed(block.piece(text), text)
        self._answer.blocked |= block.text.blocked

    async def _stop(self, block: Block) -> None:
        if block.text is None:
            await self._show(block)
        else:
            await block.text.finish()
            self._answer.blocked |= block.text.blocked
            for late in [] if self._answer.blocked else block.text.late:
                await self._write(late)
        if not self._answer.blocked:
            block.is_announced = block.is_over = True
            await self._write(block.event(STOP))

    async def _show(self, block: Block) -> None:
        """A block without prose is whole: it is shown with its deltas, or not at all."""
        shown = await self._answer.other_block(block.frame, block.deltas)
        if shown is not None:
            await self._write(block.event(START, content_block=shown))
            for delta in block.deltas:
                await self._write(block.event(DELTA, delta=delta))

    async def _refuse(self) -> None:
        """Puts the refusal where the blocked segment was, and closes what is open."""
        if self._is_refused:
            return
        self._is_refused = True
        self._on_blocked()
        refusal = self._moderator.refusal
        is_said = False
        for block in self._blocks.values():
            if block.is_announced and not block.is_over:
                block.is_over = True
                if block.kind == "text" and not is_said:
                    is_said = True
                    await self._write(block.piece(refusal))
                await self._write(block.event(STOP))
        if not is_said:
            index = (
                max([block.index for block in self._blocks.values() if block.is_announced], default=-1) + 1
            )
            block = Block(index, refusal_block(refusal))
            await self._write(block.event(START, content_block=refusal_block("")))
            await self._write(block.piece(refusal))
            await self._write(block.event(STOP))

    async def _end(self, event: JsonObject) -> None:
        """The message is over, and says why."""
        for block in list(self._blocks.values()):
            if not block.is_over and not self._answer.blocked:
                await self._stop(block)
        if self._answer.blocked:
            await self._refuse()
        delta = await self._answer.surroundings.fields(object_in(event, "delta"), repeats=True)
        rest = {name: value for name, value in event.items() if name not in ("type", "delta")}
        if self._answer.blocked:
            delta |= refused(delta, self._moderator.refusal)
        await self._write(
            {"type": event["type"], "delta": delta} | await self._answer.surroundings.fields(rest)
        )


def _cut(event: JsonObject, text: str) -> JsonObject:
    delta = event["delta"]
    return event | {"delta": delta | {"text" if delta["type"] == "text_delta" else "thinking": text}}


def _index(event: JsonObject) -> int:
    index = event.get("index", 0)
    if type(index) is not int or not 0 <= index < MAX_INDEX:
        raise MalformedError(f"an index is not a number below {MAX_INDEX}")
    return index
