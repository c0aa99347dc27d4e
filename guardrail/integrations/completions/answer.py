"""What answers of several APIs have in common while they are moderated: voices, documents, calls of tools."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from guardrail.integrations.completions.content import ContentPart, is_clean_document
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.surroundings import Surroundings
from guardrail.integrations.completions.voice import Voice
from guardrail.integrations.strict_json import JsonObject

__all__ = ["CompletionContext", "ModeratedAnswer"]


@dataclass(frozen=True, slots=True)
class CompletionContext:
    """What the client asked for, as far as it matters: the request itself, and whether the text is JSON."""

    content: JsonObject = field(default_factory=dict, repr=False)
    document: bool = False


class ModeratedAnswer:
    """One answer while it is moderated. ``blocked`` is true once nothing more of it may be shown.

    ``document_kind`` is the kind of parts that hold the JSON that was asked for.
    """

    document_kind: ClassVar[str]

    def __init__(self, moderator: Moderator, asked: CompletionContext) -> None:
        self.blocked = False
        self.surroundings = Surroundings(moderator, asked=asked.content)
        self._moderator = moderator
        self._document = asked.document
        self._voices: dict[str, Voice] = {}
        self._calls: dict[str, None] = {}

    def voice(self, kind: str) -> Voice:
        """What judges all parts of a kind."""
        if kind not in self._voices:
            self._voices[kind] = Voice(self._moderator)
        return self._voices[kind]

    def is_document(self, kind: str) -> bool:
        """True for parts that hold the JSON that was asked for."""
        return self._document and kind == self.document_kind

    async def end(self) -> None:
        """No other part comes."""
        for voice in self._voices.values():
            await voice.end()

    async def close(self) -> None:
        """Drops what was not released."""
        for voice in self._voices.values():
            await voice.close()

    async def prose(self, kind: str, text: str) -> str | None:
        """What may be shown of a whole text; None if it is JSON that is not clean."""
        if self.is_document(kind):
            self.blocked = not await is_clean_document([ContentPart("", ((),), (text,))], self._moderator)
            return None if self.blocked else text
        shown = await self.voice(kind).whole(text)
        self.blocked = self.voice(kind).blocked
        return shown

    async def is_clean_call(self, strings: Iterable[str]) -> bool:
        """False if a call of a tool is toxic, and then the answer is blocked.

        It is judged together with those before, so that nothing escapes by being spread over several.
        """
        calls = self._calls | dict.fromkeys(text for text in strings if text)
        self.blocked = not await self._moderator.is_clean(list(calls))
        if not self.blocked:
            self._calls = calls
        return not self.blocked
