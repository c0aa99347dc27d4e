"""One choice of a streamed completion: text through guard streams, calls of tools held until whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from guardrail.engine.steps import PAUSE, Pause
from guardrail.errors import FailureError
from guardrail.integrations.completions.completion import (
    BLOCKED,
    CHAT,
    DOCUMENT,
    AnswerShape,
    finish_reason,
    holds_no_text,
    message_of,
)
from guardrail.integrations.completions.content import (
    ContentPart,
    is_clean_document,
    is_readable,
    merged,
    parts_in,
)
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.timing import note_text
from guardrail.integrations.completions.tool_calls import ToolCalls
from guardrail.integrations.strict_json import JsonObject, object_in
from guardrail.outcome import Action

__all__ = ["ChoiceStream"]

CLOSED = (anyio.BrokenResourceError, anyio.ClosedResourceError)
MAX_QUEUED_PIECES = 64
"""Pieces of text that may wait for the guard; then the upstream is not read until it has caught up."""


class ChunkSink(Protocol):
    """Where a choice puts what may be seen."""

    async def emit(
        self, index: int, fields: JsonObject, *, reason: str | None = None, usage: JsonObject | None = None
    ) -> None:
        """Writes one chunk."""
        ...

    def fail(self, error: FailureError) -> None:
        """Ends the whole answer, because the guard cannot work."""
        ...


class ChoiceStream:
    """Takes up the deltas of one choice and emits what was moderated, as soon as it was.

    Each field of text has a guard stream of its own. Where the upstream turns from one field to another, the
    first is emitted to its end before the second is judged, so that the order is kept. A choice ends with the
    answer: its last reason counts, for some upstreams name one in every delta. Then all fields are drained
    and its calls judged. It ends as soon as a segment is blocked, too; nothing is emitted after that.
    """

    def __init__(
        self,
        index: int,
        *,
        shape: AnswerShape,
        moderator: Moderator,
        sink: ChunkSink,
        tasks: TaskGroup,
    ) -> None:
        self.blocked = False
        self._ended = False
        self._index = index
        self._shape = shape
        self._moderator = moderator
        self._sink = sink
        self._tasks = tasks
        self._texts: dict[str, FieldText] = {}
        self._running = 0
        self._calls = ToolCalls()
        self._document: list[ContentPart] = []
        self._introduced = shape.kind is not CHAT
        self._reason: str | None = None
        self._has_odd_reason = False
        self._has_deltas = False
        self._is_whole = True
        self._usage: JsonObject | None = None

    @property
    def is_over(self) -> bool:
        """True once the upstream said why the choice is over, or nothing more of it may be seen."""
        return self.blocked or self._reason is not None

    async def feed(self, choice: JsonObject, *, usage: JsonObject | None) -> None:
        """Takes up one delta, or drops it behind the end. MalformedError if it has another shape."""
        if self._ended or self.blocked:
            return
        source = self._source(choice)
        if not self._introduced:
            self._introduced = True
            await self._sink.emit(self._index, {"role": "assistant", "content": ""})
        await self._take_prose(source)
        if self._shape.document:
            self._document = merged([*self._document, *parts_in(source, DOCUMENT)])
        self._calls.collect(source, streamed=True)
        self._take_reason(choice.get("finish_reason"), usage)

    def finish(self) -> None:
        """The answer is over. Without a reason, as of a careless upstream, none is written."""
        if self._ended or self.blocked:
            return
        self._ended = True
        self._end_texts()
        if not self._running:
            self._tasks.start_soon(self._settle)

    def break_off(self) -> None:
        """No more can be read: the text so far is moderated and emitted.

        A call, a document and the end are not, unless the upstream had said that the choice is over.
        """
        self._is_whole = self.is_over
        self.finish()

    def close(self) -> None:
        """Drops what still waits for the guard, however the answer ended."""
        for field_text in self._texts.values():
            field_text.close()

    def _source(self, choice: JsonObject) -> JsonObject:
        """What is new in a chunk: behind deltas a message only repeats what they said."""
        if self._has_deltas:
            return object_in(choice, self._shape.kind.delta)
        self._has_deltas = bool(choice.get("delta"))
        return message_of(choice, self._shape.kind, streamed=True)

    def _take_reason(self, reason: object, usage: JsonObject | None) -> None:
        known = finish_reason(reason)
        self._has_odd_reason |= known is None and isinstance(reason, str) and reason not in ("", "null")
        if known is not None:
            self._reason = known
        if usage is not None and self.is_over:
            self._usage = usage

    async def _take_prose(self, source: JsonObject) -> None:
        found: dict[str, list[ContentPart]] = {}
        for name in self._shape.prose:
            value = source.get(name)
            if name in self._shape.allowed and holds_no_text(value):
                await self._sink.emit(self._index, {name: value})
            elif name not in self._shape.allowed or is_readable(value):
                found[name] = parts_in(source, name)
        if any(found.values()):
            for name, field_text in self._texts.items():
                if not found.get(name):
                    await field_text.pause()
        for name, parts in found.items():
            for part in parts:
                await self._take_part(name, part)

    async def _take_part(self, name: str, part: ContentPart) -> None:
        """Pours the texts of a part; one without any is emitted as it is, if it is harmless."""
        for number, text in enumerate(part.texts):
            field_text = await self._text(name, part.one(number))
            if self.blocked:
                return
            await field_text.pour(text)
        if not part.texts:
            field_text = await self._text(name, part)
            if not self.blocked:
                await self._sink.emit(self._index, {name: part.frame})

    async def _text(self, name: str, part: ContentPart) -> FieldText:
        """The text of a field on its way, set to write the part."""
        if name not in self._texts:
            field_text = self._texts[name] = FieldText()
            self._running += 1
            self._tasks.start_soon(self._moderate, name, field_text)
        field_text = self._texts[name]
        if field_text.part is None or not part.fits(field_text.part):
            await field_text.pause()
            if part.is_listed and not await self._moderator.is_harmless(part.frame):
                await self._block()
            field_text.part = part
        return field_text

    async def _moderate(self, name: str, field_text: FieldText) -> None:
        """Emits one field's text as the guard releases it."""
        try:
            async with self._moderator.stream(field_text.chunks()) as stream:
                async for piece in stream:
                    if self.blocked:
                        return
                    assert field_text.part is not None
                    note_text()
                    await self._sink.emit(self._index, {name: field_text.part.filled([piece])})
        except FailureError as error:
            self._sink.fail(error)
            return
        finally:
            field_text.close()
        self._running -= 1
        if self._moderator.settled(stream.outcome) is Action.BLOCKED:
            await self._block()
        elif self._ended and not self._running:
            await self._settle()

    async def _settle(self) -> None:
        """Emits what was held back, if it is clean, and the end."""
        if self.blocked or not self._is_whole:
            return
        try:
            held = await self._held()
        except FailureError as error:
            self._sink.fail(error)
            return
        await self._release(held)

    async def _release(self, held: list[JsonObject]) -> None:
        for fields in held:
            await self._sink.emit(self._index, fields)
        reason = self._reason or ("stop" if self._has_odd_reason else None)
        if self.blocked:
            await self._sink.emit(self._index, {}, reason=BLOCKED, usage=self._usage)
        elif reason is not None:
            await self._sink.emit(self._index, {}, reason=reason, usage=self._usage)

    async def _held(self) -> list[JsonObject]:
        """The deltas of the document and the calls, as far as they are clean."""
        held: list[JsonObject] = []
        if self._document:
            self.blocked = not await is_clean_document(self._document, self._moderator)
            shown = [self._moderator.refusal] if self.blocked else [p.filled(p.texts) for p in self._document]
            held += [{DOCUMENT: value} for value in shown]
        if not self.blocked:
            self.blocked = not await self._calls.are_clean(self._moderator)
        calls = self._calls.fields(streamed=True)
        return held if self.blocked or not calls else [*held, calls]

    async def _block(self) -> None:
        if not self.blocked:
            self.blocked = True
            self._end_texts()
            await self._sink.emit(self._index, {}, reason=BLOCKED, usage=self._usage)

    def _end_texts(self) -> None:
        for field_text in self._texts.values():
            field_text.end()


class FieldText:
    """One field's text on its way to the guard, and the part of which its pieces are written."""

    def __init__(self) -> None:
        self.part: ContentPart | None = None
        self._inlet, self._source = anyio.create_memory_object_stream[str | anyio.Event](MAX_QUEUED_PIECES)
        self._drained: anyio.Event | None = None
        self._is_open = False  # the guard may hold back what was poured

    async def pour(self, text: str) -> None:
        """Hands text to the guard; drops it once the guard reads no more."""
        self._is_open = True
        with suppress(*CLOSED):
            try:
                self._inlet.send_nowait(text)  # a turn of the event loop for each token would be dear
            except anyio.WouldBlock:
                await self._inlet.send(text)

    async def pause(self) -> None:
        """Returns once all that was poured has been judged and emitted, its unfinished end included."""
        if not self._is_open:
            return
        self._is_open = False
        drained = self._drained = anyio.Event()
        with suppress(*CLOSED):
            await self._inlet.send(drained)
            await drained.wait()

    async def chunks(self) -> AsyncIterator[str | Pause]:
        """What the guard reads: all that was poured meanwhile at once.

        It asks for more once it has released what it could.
        """
        async for item in self._source:
            pieces: list[str] = []
            with suppress(anyio.WouldBlock, anyio.EndOfStream):
                while isinstance(item, str):
                    pieces.append(item)
                    item = self._source.receive_nowait()
            if pieces:
                yield "".join(pieces)
            if isinstance(item, anyio.Event):
                yield PAUSE
                item.set()

    def end(self) -> None:
        """Nothing more will be poured."""
        self._inlet.close()

    def close(self) -> None:
        """The guard reads no more."""
        self.end()
        self._source.close()
        if self._drained is not None:
            self._drained.set()
