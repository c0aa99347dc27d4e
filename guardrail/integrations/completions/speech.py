"""The texts of one answer as frameworks hand them on, piece by piece: which piece of which may be shown."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from dataclasses import dataclass, field

from guardrail.engine.steps import PAUSE, Pause
from guardrail.guard import Guard
from guardrail.integrations.completions.answer import CompletionContext, ModeratedAnswer
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.turn import Blocking

__all__ = ["Said", "Speech"]


@dataclass(frozen=True, slots=True)
class Said:
    """A piece that may be shown; ``key`` is the text that it belongs to."""

    key: Hashable
    text: str = field(repr=False)


class Speech(ModeratedAnswer):
    """One answer. Texts of a kind, such as "text" or "thinking", are judged one after the other as one text.

    ``document`` says that the texts of the kind "text" hold the JSON that was asked for.
    """

    document_kind = "text"

    def __init__(self, guard: Guard, *, document: bool = False, kind: type[Moderator] = Moderator) -> None:
        self._blocking = Blocking(guard, kind=kind)
        super().__init__(self._blocking.moderator, CompletionContext(document=document))
        self._refused: set[str] = set()
        self._keys: dict[str, Hashable] = {}  # the text of each kind that is not all judged

    async def say(self, kind: str, key: Hashable, text: str) -> AsyncGenerator[Said, None]:
        """What may be shown now that a text goes on."""
        if self._keys.get(kind, key) != key:  # what came before is judged before what comes now
            async for said in self.pause(kind):
                yield said
        self._keys[kind] = key
        async for said in self._pushed(kind, text):
            yield said

    def refused(self) -> list[Hashable]:
        """The texts in which a segment was blocked; each ends there, and wants the refusal once."""
        names = [kind for kind in self._keys if self.voice(kind).blocked and kind not in self._refused]
        self._refused |= set(names)
        return [self._keys[kind] for kind in names]

    async def pause(self, *kinds: str) -> AsyncGenerator[Said, None]:
        """The rest of the texts of these kinds, by default of all; others may follow."""
        for kind in kinds or tuple(self._keys):
            if kind in self._keys:
                async for said in self._pushed(kind, PAUSE):
                    yield said

    async def whole(self, kind: str, key: Hashable, text: str) -> str:
        """What may be shown of a text that is there as a whole."""
        pieces = [said.text async for said in self.say(kind, key, text)]
        return "".join([*pieces, *[said.text async for said in self.pause(kind)]])

    async def holds_clean(self, value: object) -> bool:
        """False if a call of a tool, or another part that is not rewritten, is toxic; then all is blocked."""
        return await self.is_clean_call(self.surroundings.strings(value))

    def refusal(self) -> str:
        """What stands behind a blocked answer; BlockedError under ``Policy(block="raise")``."""
        self._blocking.on_blocked()
        return self._moderator.refusal

    @property
    def keeps_nothing(self) -> bool:
        """True once the answer is blocked under a policy that withholds the whole of it."""
        return self.blocked and self._blocking.block_whole

    async def _pushed(self, kind: str, piece: str | Pause) -> AsyncGenerator[Said, None]:
        voice = self.voice(kind)
        async with aclosing(voice.push(piece)) as released:
            async for text in released:
                yield Said(self._keys[kind], text)
        self.blocked |= voice.blocked
