"""The guard as completions need it: one for prose, one that only detects, both counted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, cast

from guardrail.engine.steps import PAUSE, Pause
from guardrail.engine.stream import AsyncStream
from guardrail.errors import BlockedError
from guardrail.guard import Guard
from guardrail.integrations.completions.content import Part
from guardrail.integrations.completions.sanitize import CATEGORIES, identifiers_in, leaves, strings_of
from guardrail.integrations.completions.tool_calls import Calls
from guardrail.integrations.openai_server.metrics import Metrics
from guardrail.outcome import Action, Outcome
from guardrail.structured.identifiers import is_identifier, texts_of

__all__ = [
    "Moderator",
    "Passages",
]

_MEDIA = re.compile(r"data:(?:audio|image|video)/[\w.+-]+;base64,[A-Za-z0-9+/=_-]*", re.ASCII)
"""Pictures and sounds: what they show is not a text that could be read here."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Texts as they were released, one after the other; behind the blocked one all are empty."""

    texts: list[str] = field(repr=False)
    blocked_at: int | None = None


class Moderator:
    """Moderates what a model says.

    ``guard`` decides about prose. Under ``Policy(block="raise")`` a blocked segment is replaced by the
    refusal, for a client is told of it by ``finish_reason``.
    """

    def __init__(self, guard: Guard, metrics: Metrics) -> None:
        policy = guard.policy
        self.guard = guard.with_policy(replace(policy, block="segment")) if policy.block == "raise" else guard
        self._segmentwise = self.guard.with_policy(replace(policy, block="segment"))
        self._strict = guard.with_policy(replace(policy, ladder=("block",), block="segment"))
        self._metrics = metrics

    @property
    def refusal(self) -> str:
        """What stands in place of a text that was withheld."""
        return self.guard.policy.refusal

    async def prose(self, text: str) -> Outcome:
        """The outcome of a text that people read."""
        return self._counted(await self.guard.acheck(text))

    async def passages(self, texts: Sequence[str]) -> Passages:
        """Texts that people read one after the other, each judged with those before it."""
        released = [""] * len(texts)
        here = 0

        async def chunks() -> AsyncIterator[str | Pause]:
            nonlocal here
            for here, text in enumerate(texts):  # noqa: B007  # where released pieces belong
                yield text
                yield PAUSE

        stream = self._segmentwise.astream(cast("AsyncIterable[str]", chunks()))
        async with stream:
            async for piece in stream:
                released[here] += piece
        if self.settled(stream.outcome) is not Action.BLOCKED:
            return Passages(released)
        if self.guard.policy.block == "whole":
            return Passages([self.refusal] + [""] * (len(texts) - 1), 0)
        return Passages(released, here)

    def stream(self, chunks: AsyncIterable[str | Pause]) -> AsyncStream:
        """The text as it is released; ``settled`` wants its outcome."""
        return self.guard.astream(cast("AsyncIterable[str]", chunks))

    def settled(self, outcome: Outcome | None) -> Action:
        """Counts the outcome of a stream that has ended, and says what was done."""
        assert outcome is not None
        return self._counted(outcome).action

    async def is_clean(self, strings: Sequence[str]) -> bool:
        """False where strings that may not be rewritten, such as arguments of a tool, hold something toxic.

        They are judged as one text, so that nothing escapes by being spread over several; ids, codes and
        names are read as words.
        """
        text = "\n".join(read for string in strings for read in texts_of(string))
        return not text or self._counted(await self._strict.acheck(text)).action is Action.PASSED

    async def allows(self, calls: Calls) -> bool:
        """False where calls of tools hold something toxic; an id that does is replaced by one of ours."""
        if not await self.is_clean(calls.strings()):
            return False
        calls.name_anew(unless=await self.identifiers(calls.ids()))
        return True

    async def is_clean_document(self, parts: Sequence[Part]) -> bool:
        """False where JSON that was asked for, as a reader decodes it, or what surrounds it is toxic."""
        texts = [text for part in parts for text in part.texts]
        whole = ["".join(texts)] if len(texts) > 1 else []
        strings = [string for text in (*texts, *whole) for string in strings_of(text)]
        frames = [part.frame for part in parts if part.is_listed]
        return await self.is_clean(strings) and await self.is_harmless(frames)

    async def is_harmless(self, value: Any) -> bool:
        """False where a JSON value that is no prose, such as a picture's frame, holds something toxic."""
        strings = [string for string in leaves(value) if not is_identifier(string)]
        texts = [string for string in strings if not _MEDIA.fullmatch(string)]
        return len(await self.identifiers(value)) == len(identifiers_in(value)) and await self.is_clean(texts)

    async def identifiers(self, value: object) -> frozenset[str]:
        """The identifiers in a JSON value, keys too, that hold nothing toxic; those of other shape are not.

        The guard remembers short ones that it found clean.
        """
        found = identifiers_in(value)
        return frozenset(compress(found, await asyncio.gather(*map(self._is_harmless, found))))

    async def _is_harmless(self, identifier: str) -> bool:
        if identifier in CATEGORIES:
            return True
        try:
            # In a dict, because a string by itself would be prose.
            await self.guard.amoderate({"identifier": identifier})
        except BlockedError as error:
            self._counted(error.outcome)
            return False
        return True

    def _counted(self, outcome: Outcome) -> Outcome:
        self._metrics.count(outcome)
        return outcome
