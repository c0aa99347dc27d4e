"""Streamed responses: events in, moderated events out, in their order and numbered anew."""

from __future__ import annotations

from guardrail.integrations.completions.event_stream import EventStream, OnBlocked
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.report import with_report
from guardrail.integrations.completions.voice import Emit, EventText, HeldDocument, ProseEvents
from guardrail.integrations.responses.parts import ADDED, DONE, Part, ResponseItem, empty_part, refusal_events
from guardrail.integrations.responses.response import (
    LISTS,
    PROSE,
    ModeratedResponse,
    ResponseContext,
    is_prose_item,
    list_in,
    refusal_message,
    refusal_part,
)
from guardrail.integrations.strict_json import JsonObject, MalformedError, object_in, string_in

__all__ = ["ResponseStream"]

BEGINNING = ("response.created", "response.queued", "response.in_progress")
ENDS = ("response.completed", "response.failed", "response.incomplete")
ANNOTATION = "response.output_text.annotation.added"
SPOKEN = {f"response.{kind}": kind for kind in PROSE} | {"response.reasoning_summary_text": "summary_text"}
"""What begins the names of events with text, and the kind of part that they are of."""
PARTS = ("response.content_part", "response.reasoning_summary_part")
MAX_INDEX = 1024


class ResponseStream(EventStream):
    """One streamed response.

    ``write`` gets one event at a time. Where a segment is blocked, a refusal takes its place, every open item
    is closed and nothing follows but the end, with what the upstream used.
    """

    def __init__(
        self,
        *,
        moderator: Moderator,
        write: Emit,
        asked: ResponseContext | None = None,
        on_blocked: OnBlocked | None = None,
    ) -> None:
        super().__init__(write, on_blocked=on_blocked)
        self._moderator = moderator
        self._answer = ModeratedResponse(moderator, asked or ResponseContext())
        self._items: dict[int, ResponseItem] = {}
        self._number: int | None = None
        self._is_refused = False

    async def _take(self, event: JsonObject) -> None:
        if self._number is None:
            first = event.get("sequence_number")
            self._number = first if type(first) is int and first >= 0 else 0
        await self._take_up(event)
        if self._answer.blocked and not self.is_over:
            await self._refuse()

    async def break_off(self) -> None:
        """No more can be read: the text so far is moderated and written."""
        for item in self._items.values():
            for part in item.parts.values():
                if isinstance(part.text, ProseEvents) and not part.is_finished and not self._answer.blocked:
                    await part.text.finish()

    async def close(self) -> None:
        """Drops what was not written."""
        await self._answer.close()

    @property
    def next_number(self) -> int:
        """The number of the event that comes next."""
        return self._number or 0

    async def _emit(self, event: JsonObject) -> None:
        number = self.next_number
        self._number = number + 1
        await self._write(event | {"sequence_number": number})

    async def _take_up(self, event: JsonObject) -> None:
        kind = event["type"]
        if kind in ENDS:
            await self._end(event)
        elif self._answer.blocked:
            return
        elif kind in BEGINNING:
            response = object_in(event, "response")
            framed = await self._answer.frame(response, response.get("output") and [])
            await self._emit({"type": kind, "response": framed})
        elif kind == ADDED:
            await self._add(event)
        elif "output_index" in event:
            await self._take_inner(event)
        else:
            await self._take_other(event)

    async def _take_other(self, event: JsonObject) -> None:
        """An event of a kind that is not known here: a fragment of a text could not be judged."""
        if "delta" not in event and await self._answer.surroundings.is_clean(event):
            await self._emit(event)

    async def _add(self, event: JsonObject) -> None:
        frame = object_in(event, "item")
        if not frame:
            return  # some servers announce an item twice, at first without it
        item = self._items[_index(event, "output_index")] = ResponseItem(event["output_index"], frame)
        if not item.is_prose:
            item.held.append({"type": ADDED, "output_index": item.index, "item": frame})
            return
        item.frame = await self._answer.item_frame(frame)
        await self._emit(item.added())
        for name, position, part in _parts_in(frame):
            await self._take_part(item, name, position, part)

    async def _take_inner(self, event: JsonObject) -> None:
        """An event of one item."""
        index = _index(event, "output_index")
        if index not in self._items:
            await self._add({"output_index": index, "item": object_in(event, "item") or _guessed(event)})
        item = self._items[index]
        if item.done is not None:
            return
        if event["type"] == DONE:
            await (self._end_prose if item.is_prose else self._end_tool)(item, object_in(event, "item"))
        elif item.is_prose:
            await self._take_of_part(event, item)
        else:
            item.held.append(event)

    async def _take_of_part(self, event: JsonObject, item: ResponseItem) -> None:
        begins, _, step = event["type"].rpartition(".")
        name = "summary" if begins.startswith("response.reasoning_summary") else "content"
        position = _index(event, f"{name}_index")
        if begins in PARTS:
            frame = object_in(event, "part")
            await self._take_part(item, name, position, frame)
            if step == "done" and (part := item.parts.get((name, position))):
                await self._close_part(part, frame)
        elif begins in SPOKEN and step in ("delta", "done"):
            kind = SPOKEN[begins]
            part = item.parts.get((name, position)) or await self._open(
                item, name, position, empty_part(kind)
            )
            part.has_logprobs |= "logprobs" in event
            if step == "delta":
                await self._feed(part, string_in(event, "delta"))
            else:
                await self._finish(part, string_in(event, PROSE[kind]))
        elif event["type"] == ANNOTATION:
            await self._annotate(event, item.parts.get(("content", position)))
        else:
            await self._take_other(event)

    async def _take_part(self, item: ResponseItem, name: str, position: int, frame: JsonObject) -> None:
        """A part as it begins, or one of which no events came."""
        if (name, position) in item.parts or self._answer.blocked:
            return
        if not isinstance(frame.get("type"), str) or frame["type"] not in PROSE:
            self._answer.blocked = not await self._answer.surroundings.is_clean(frame)
            return
        part = await self._open(item, name, position, frame)
        if text := string_in(frame, PROSE[part.kind]):
            await self._feed(part, text)

    async def _open(self, item: ResponseItem, name: str, position: int, frame: JsonObject) -> Part:
        place = {"item_id": item.frame.get("id"), "output_index": item.index, f"{name}_index": position}
        kind = frame["type"]
        text: EventText
        if self._answer.is_document(kind):
            text = HeldDocument(self._moderator, emit=self._emit)
        else:
            text = ProseEvents(self._answer.voice(kind), cut=_cut, emit=self._emit)
        part = Part(kind, place, text, await self._answer.part_frame(frame, ""))
        item.parts[name, position] = part
        await (text.accompany if isinstance(text, HeldDocument) else self._emit)(part.opened())
        return part

    async def _feed(self, part: Part, text: str) -> None:
        if not part.is_finished and not self._answer.blocked:
            await part.text.feed(part.delta(text), text)
            self._answer.blocked |= part.text.blocked

    async def _finish(self, part: Part, final: str) -> None:
        """The text of a part is over. What its last event says beyond the pieces belongs to it."""
        if part.is_finished:
            return
        if len(final) > len(part.text.given) and final.startswith(part.text.given):
            await self._feed(part, final[len(part.text.given) :])
        part.is_finished = True
        if not self._answer.blocked:
            await part.text.finish()
            self._answer.blocked |= part.text.blocked
        if not self._answer.blocked:
            await self._emit_annotations(part)
            await self._emit(part.done())

    async def _emit_annotations(self, part: Part) -> None:
        """Those that could not be shown in their place, because the text is another one."""
        earlier = part.heard[: len(part.heard) - len(part.text.late)]
        part.annotations = await self._annotations(part, earlier)
        for event in part.text.late:
            for annotation in await self._annotations(part, [event["annotation"]]):
                number = len(part.annotations)
                await self._emit(event | {"annotation": annotation, "annotation_index": number})
                part.annotations.append(annotation)

    async def _annotations(self, part: Part, listed: object) -> list[JsonObject]:
        return await self._answer.annotations(listed, part.text.given, part.text.text)

    async def _annotate(self, event: JsonObject, part: Part | None) -> None:
        annotation = event.get("annotation")
        if part is None or part.is_finished or not isinstance(annotation, dict):
            return
        if await self._answer.surroundings.is_clean(annotation):
            named = {"annotation_index": len(part.heard), "annotation": annotation}
            part.heard.append(annotation)
            await part.text.accompany({"type": ANNOTATION, **part.place, **named})

    async def _close_part(self, part: Part, frame: JsonObject) -> None:
        if part.is_closed:
            return
        is_same = frame.get("type") == part.kind
        await self._finish(part, string_in(frame, PROSE[part.kind]) if is_same else "")
        if self._answer.blocked:
            return
        part.is_closed = True
        if is_same:
            part.frame = await self._answer.part_frame(frame, "")
            if frame.get("annotations"):
                part.annotations = await self._annotations(part, frame["annotations"])
        await self._emit(part.closed())

    async def _end_prose(self, item: ResponseItem, frame: JsonObject) -> None:
        if frame.get("type") != item.frame["type"]:
            frame = {}
        for name, position, came in _parts_in(frame):
            await self._take_part(item, name, position, came)
            if not self._answer.blocked and (part := item.parts.get((name, position))):
                await self._close_part(part, came)
        for part in list(item.parts.values()):
            if not self._answer.blocked:
                await self._close_part(part, {})
        if self._answer.blocked:
            return
        done = await self._answer.item_frame(frame) if is_prose_item(frame) else dict(item.frame)
        done |= {"id": item.frame["id"]} if "id" in item.frame else {}
        await self._emit(item.closed(item.with_parts(done, frame)))

    async def _end_tool(self, item: ResponseItem, frame: JsonObject) -> None:
        """A tool's item is whole: all of its events are shown, or none."""
        held, item.held = item.held, []
        done = await self._answer.tool_item(frame or item.frame, held)
        if done is None:
            return
        for event in held:
            shown = event | ({"item_id": done.get("id")} if "item_id" in event else {})
            if "item" in event:
                shown["item"] = await self._announced(object_in(event, "item"), done)
            await self._emit(shown)
        await self._emit(item.closed(done))

    async def _announced(self, frame: JsonObject, done: JsonObject) -> JsonObject:
        """A tool's item as it began, with the ids that it has at its end."""
        if frame.get("type") != done.get("type"):
            return done  # it was not announced
        ids = {name: done[name] for name in frame if name in done and (name == "id" or name.endswith("_id"))}
        return await self._answer.surroundings.fields(frame, ids)

    async def _refuse(self) -> None:
        """Closes what is open, and says that nothing follows."""
        if self._is_refused:
            return
        self._is_refused = True
        self._on_blocked()
        refusal, is_said = self._moderator.refusal, False
        for item in self._items.values():
            if item.done is None and item.is_prose:
                says_why = item.frame["type"] == "message" and not is_said
                is_said |= says_why
                await self._cut_off(item, refusal if says_why else None)
        if is_said:
            return
        index = max([index for index, item in self._items.items() if item.done], default=-1) + 1
        message = refusal_message(refusal)
        item = self._items[index] = ResponseItem(index, message | {"status": "in_progress", "content": []})
        await self._emit(item.added())
        for event in refusal_events(item, 0, refusal):
            await self._emit(event)
        await self._emit(item.closed(message))

    async def _cut_off(self, item: ResponseItem, refusal: str | None) -> None:
        """Closes an item in the middle; a message says why."""
        for place, part in list(item.parts.items()):
            if isinstance(part.text, HeldDocument) and not part.text.text:
                del item.parts[place]  # it was not announced
            elif not part.is_closed:
                part.is_finished = part.is_closed = True
                part.annotations = await self._annotations(part, part.heard)
                await self._emit(part.done())
                await self._emit(part.closed())
        done = item.with_parts(dict(item.frame), {})
        done |= {"status": "incomplete"} if "status" in done else {}
        if refusal is not None:
            done["content"] = [*done.get("content", []), refusal_part(refusal)]
            for event in refusal_events(item, item.end, refusal):
                await self._emit(event)
        await self._emit(item.closed(done))

    async def _end(self, event: JsonObject) -> None:
        """The response is over: it lists what was shown."""
        response = object_in(event, "response")
        listed = response.get("output")
        for index, frame in enumerate(listed if isinstance(listed, list) else ()):
            if not isinstance(frame, dict):
                raise MalformedError("an output item is not an object")
            await self._take_listed(index, frame)
        for item in list(self._items.values()):
            if item.done is None and not self._answer.blocked:
                cut = {"status": "incomplete"} if "status" in item.frame else {}
                await self._take_inner({"type": DONE, "output_index": item.index, "item": item.frame | cut})
        if self._answer.blocked:
            await self._refuse()
        await self._answer.end()
        self.is_over = True
        output = [item.done for _, item in sorted(self._items.items()) if item.done is not None]
        kind = event["type"]
        if self._answer.blocked and kind == "response.incomplete":
            kind = "response.completed"
        framed = await self._answer.frame({"output": None} | response, output)
        await self._emit({"type": kind, "response": with_report(framed)})

    async def _take_listed(self, index: int, frame: JsonObject) -> None:
        """An item that the end lists: its own events may be missing, or not all there."""
        identity = frame.get("id")
        known = [item.index for item in self._items.values() if identity and item.frame.get("id") == identity]
        if not self._answer.blocked:
            await self._take_inner({"type": DONE, "output_index": (known or [index])[0], "item": frame})


def _cut(event: JsonObject, text: str) -> JsonObject:
    return event | {"delta": text}


def _guessed(event: JsonObject) -> JsonObject:
    """The item of an event that a careless server did not announce."""
    begins, _, _ = event["type"].rpartition(".")
    item: JsonObject = {"id": event.get("item_id"), "type": "unknown"}
    if begins.startswith("response.reasoning"):
        item |= {"type": "reasoning", "summary": []}
    elif begins in SPOKEN or begins in PARTS:
        item |= {"type": "message", "role": "assistant", "status": "in_progress", "content": []}
    return item


def _index(event: JsonObject, name: str) -> int:
    index = event.get(name, 0)
    if type(index) is not int or not 0 <= index < MAX_INDEX:
        raise MalformedError(f"{name} is not a number below {MAX_INDEX}")
    return index


def _parts_in(frame: JsonObject) -> list[tuple[str, int, JsonObject]]:
    """The parts of a message or reasoning, and where they stand."""
    names = LISTS[frame["type"]] if is_prose_item(frame) else ()
    return [(name, at, part) for name in names for at, part in enumerate(list_in(frame, name))]
