"""Text that comes in events: clean text passes in these, rewritten text in copies of them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from guardrail.engine.steps import PAUSE, Pause
from guardrail.integrations.completions.content import ContentPart, is_clean_document
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.timing import note_text
from guardrail.integrations.strict_json import JsonObject
from guardrail.outcome import Action

__all__ = ["Emit", "EventText", "HeldDocument", "ProseEvents", "Voice"]

Emit = Callable[[JsonObject], Awaitable[None]]
"""Takes an event that may be shown."""
Cut = Callable[[JsonObject, str], JsonObject]
"""An event with another text."""


class Voice:
    """One kind of text in an answer, such as what it says or its reasoning.

    All parts of that kind are judged as one text, one after the other, so that nothing escapes by being
    spread over several. ``blocked`` is true once a segment was; nothing is released from there on.
    """

    def __init__(self, moderator: Moderator) -> None:
        self.blocked = False
        self.speaking: ProseEvents | None = None
        self._moderator = moderator
        self._text = moderator.pushed()
        self._is_over = False

    async def push(self, piece: str | Pause | None) -> AsyncGenerator[str, None]:
        """What may be shown now; the refusal in place of a blocked segment is left out."""
        if self._is_over:
            return
        refusal = self._moderator.refusal
        waiting = ""
        async with aclosing(self._text.push(piece)) as released:
            async for text in released:
                note_text()
                if waiting:
                    yield waiting
                waiting = text if text.endswith(refusal) else ""  # it may be the refusal
                if not waiting:
                    yield text
        if (outcome := self._text.outcome) is not None:
            self._is_over = True
            self.blocked = self._moderator.settled(outcome) is Action.BLOCKED
        if self.blocked:
            waiting = waiting.removesuffix(refusal)
        if waiting:
            yield waiting

    async def whole(self, text: str) -> str:
        """What may be shown of a part that is there as a whole."""
        return "".join([shown for piece in (text, PAUSE) async for shown in self.push(piece)])

    async def end(self) -> None:
        """No other part comes."""
        async for _ in self.push(None):
            pass

    async def close(self) -> None:
        """Drops what was not released."""
        await self._text.close()


class EventText:
    """The text of one part of an answer, in events that are emitted once they may be shown.

    ``given`` is the text as it came, ``text`` what was shown of it. ``late`` holds events without text that
    could not be emitted in their place, because the text is another one.
    """

    def __init__(self, emit: Emit) -> None:
        self.given = ""
        self.text = ""
        self.late: list[JsonObject] = []
        self._emit = emit

    @property
    def blocked(self) -> bool:
        """True once nothing more may be shown."""
        raise NotImplementedError

    async def feed(self, event: JsonObject, text: str) -> None:
        """Takes an event with a piece of text."""
        raise NotImplementedError

    async def accompany(self, event: JsonObject) -> None:
        """Takes an event without text, which keeps its place among the others."""
        raise NotImplementedError

    async def finish(self) -> None:
        """The text is over."""
        raise NotImplementedError


class ProseEvents(EventText):
    """A text that people read: shown sentence by sentence.

    While it is clean the events pass as they came. An event in which a released sentence ends is shown in two
    pieces, unless there is only white space in the first. From the first rewritten sentence on each released
    piece goes out in a copy of the latest event.
    """

    def __init__(self, voice: Voice, *, cut: Cut, emit: Emit) -> None:
        super().__init__(emit)
        self._voice = voice
        self._cut = cut
        self._is_same = True
        self._frame: JsonObject = {}
        self._waiting: deque[tuple[JsonObject, str]] = deque()
        self._beside: list[JsonObject] = []
        self._released = 0  # characters of the waiting texts
        self._shown = 0  # of these, in a first piece of the first event

    @property
    def blocked(self) -> bool:
        return self._voice.blocked

    async def feed(self, event: JsonObject, text: str) -> None:
        if self._voice.speaking not in (None, self):  # what came before is judged before what comes now
            await self._voice.speaking.finish()
        self._voice.speaking = self
        self._frame = event
        self.given += text
        if self._is_same:
            self._waiting.append((event, text))
            await self._pass()
        await self._moderate(text)

    async def accompany(self, event: JsonObject) -> None:
        if self._is_same:
            self._beside.append(event)
            self._waiting.append((event, ""))
            await self._pass()
        else:
            self.late.append(event)

    async def finish(self) -> None:
        """As EventText has it; what follows in another part is judged with what came before."""
        if self._voice.speaking is self:
            await self._moderate(PAUSE)
        if self._waiting:
            await self._differ()

    async def _moderate(self, piece: str | Pause) -> None:
        async with aclosing(self._voice.push(piece)) as released:
            async for text in released:
                await self._show(text)
        if self.blocked and self._waiting:
            await self._differ()

    async def _show(self, piece: str) -> None:
        self.text += piece
        if self._is_same and not self._is_next(piece):
            await self._differ()
        if self._is_same:
            self._released += len(piece)
            await self._pass()
        else:
            await self._emit(self._cut(self._frame, piece))

    def _is_next(self, piece: str) -> bool:
        """True if the waiting texts continue with the piece."""
        start, found = self._released, 0
        for _, text in self._waiting:
            if start >= len(text):
                start -= len(text)
                continue
            size = min(len(text) - start, len(piece) - found)
            if not text.startswith(piece[found : found + size], start):
                return False
            found += size
            if found == len(piece):
                return True
            start = 0
        return False

    async def _pass(self) -> None:
        """Emits the events whose text has been released."""
        while self._waiting and self._released >= len(self._waiting[0][1]):
            event, text = self._waiting.popleft()
            shown, self._shown = self._shown, 0
            self._released -= len(text)
            if shown < len(text) or not text:
                await self._emit(self._cut(event, text[shown:]) if shown else event)
        if self._waiting and self._waiting[0][1][self._shown : self._released].strip():
            await self._show_first_piece()

    async def _show_first_piece(self) -> None:
        event, text = self._waiting[0]
        if self._released > self._shown:
            piece, self._shown = text[self._shown : self._released], self._released
            await self._emit(self._cut(event, piece))

    async def _differ(self) -> None:
        """From here on the text is another one."""
        self._is_same = False
        if self._waiting:
            await self._show_first_piece()
        waiting = [event for event, _ in self._waiting]
        self.late += [event for event in self._beside if any(event is each for each in waiting)]
        self._waiting.clear()


class HeldDocument(EventText):
    """JSON that was asked for: held until it is whole, judged as a reader decodes it, never rewritten."""

    def __init__(self, moderator: Moderator, *, emit: Emit) -> None:
        super().__init__(emit)
        self._moderator = moderator
        self._waiting: list[JsonObject] = []
        self._is_clean = True

    @property
    def blocked(self) -> bool:
        return not self._is_clean

    async def feed(self, event: JsonObject, text: str) -> None:
        self.given += text
        self._waiting.append(event)

    async def accompany(self, event: JsonObject) -> None:
        self._waiting.append(event)

    async def finish(self) -> None:
        self._is_clean = await is_clean_document([ContentPart("", ((),), (self.given,))], self._moderator)
        waiting, self._waiting = self._waiting, []
        if self._is_clean:
            self.text = self.given
            for event in waiting:
                await self._emit(event)
