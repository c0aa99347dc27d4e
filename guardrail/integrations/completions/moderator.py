"""The guard as completions need it: for prose, for what may not be rewritten, and for identifiers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, Protocol, cast

from guardrail.engine.adapters import AsyncGuardAdapter, GuardAdapter, SyncGuardAdapter
from guardrail.engine.steps import PAUSE, Pause
from guardrail.engine.stream import AsyncStream
from guardrail.errors import BlockedError
from guardrail.guard import Guard
from guardrail.integrations.completions.report import note_outcome
from guardrail.integrations.completions.sanitize import CATEGORIES, identifiers_in, strings_in
from guardrail.outcome import Action, Outcome
from guardrail.outcome.explanation import Explanation, Sentence
from guardrail.policy import Policy
from guardrail.structured.identifiers import is_identifier, texts_of

__all__ = ["CompletionText", "Moderator", "PlainModerator"]

_MEDIA = re.compile(r"data:(?:audio|image|video)/[\w.+-]+;base64,[A-Za-z0-9+/=_-]*", re.ASCII)
"""Pictures and sounds: what they show is not a text that could be read here."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Texts as they were released, one after the other; behind the blocked one all are empty."""

    texts: list[str] = field(repr=False)
    blocked_at: int | None = None


class CompletionText(Protocol):
    """A text on its way through the guard; ``outcome`` is None until it is over."""

    @property
    def outcome(self) -> Outcome | None: ...
    def push(self, piece: str | Pause | None) -> AsyncGenerator[str, None]: ...
    async def close(self) -> None: ...


class Moderator:
    """Moderates what a model says; in monitor mode what was handed out already, or is there as a whole.

    ``guard`` decides about prose; ``on_outcome`` hears of every text, and under which policy it was judged.
    Under ``Policy(block="raise")`` a blocked segment is replaced by the refusal, because a client learns of
    it by ``finish_reason``.
    """

    def __init__(
        self, guard: Guard, *, on_outcome: Callable[[Outcome, Policy], object] | None = None
    ) -> None:
        policy, guard = guard.policy, guard.inline()
        self.guard = guard.with_policy(replace(policy, block="segment")) if policy.block == "raise" else guard
        self._segmentwise = self.guard.with_policy(replace(policy, block="segment"))
        self._strict = guard.with_policy(replace(policy, ladder=("block",), block="segment"))
        self._on_outcome = on_outcome
        self._adapter: GuardAdapter = AsyncGuardAdapter(self.guard)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """Every guard that is asked, each with queues of its own."""
        return self.guard, self._segmentwise, self._strict

    def with_policy(self, policy: Policy) -> Moderator:
        """A moderator under another policy that shares models and listener of this one."""
        return Moderator(self.guard.with_policy(policy), on_outcome=self._on_outcome)

    @property
    def refusal(self) -> str:
        """What stands in place of a text that was withheld."""
        return self.guard.policy.refusal

    async def prose(self, text: str) -> Outcome:
        """The outcome of a text that people read."""
        return self._counted(await self.guard.acheck(text))

    async def explained(self, text: str) -> Explanation:
        """The outcome of such a text, with every sentence and all that was tried for it."""
        explanation = await asyncio.to_thread(self.guard.explain, text)
        self._counted(explanation.outcome)
        return explanation

    async def explained_stream(
        self, chunks: AsyncIterable[str] | Iterable[str], on_sentence: Callable[[Sentence], object]
    ) -> Outcome:
        """The same from chunks; ``on_sentence`` is called with each sentence once it may be shown."""
        async with self.guard.astream(chunks, on_sentence=on_sentence) as stream:
            async for _ in stream:
                pass
        assert stream.outcome is not None
        return self._counted(stream.outcome)

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

    def pushed(self) -> CompletionText:
        """A text that is handed in piece by piece; ``settled`` wants its outcome."""
        return cast("CompletionText", AsyncGuardAdapter(self._segmentwise).push_stream())

    def stream(self, chunks: AsyncIterable[str | Pause]) -> AsyncStream:
        """The text as it is released; ``settled`` wants its outcome."""
        return self.guard.astream(cast("AsyncIterable[str]", chunks))

    def settled(self, outcome: Outcome | None) -> Action:
        """Counts the outcome of a stream that has ended, and says what was done."""
        assert outcome is not None
        return self._counted(outcome).action

    async def is_clean(self, strings: Sequence[str]) -> bool:
        """False if strings that may not be rewritten, such as arguments of a tool, hold something toxic.

        They are judged as one text, so that nothing escapes by being spread over several; ids, codes and
        names are read as words.
        """
        text = "\n".join(read for string in strings for read in texts_of(string))
        return not text or self._counted(await self._judged(text)).action is Action.PASSED

    async def _judged(self, text: str) -> Outcome:
        return await self._strict.acheck(text)

    async def is_harmless(self, value: Any) -> bool:
        """False if a JSON value that is not prose, such as a picture's frame, holds something toxic."""
        strings = [string for string in strings_in(value) if not is_identifier(string)]
        texts = [string for string in strings if not _MEDIA.fullmatch(string)]
        return len(await self.identifiers(value)) == len(identifiers_in(value)) and await self.is_clean(texts)

    async def identifiers(self, value: object) -> frozenset[str]:
        """The identifiers in a JSON value, keys too, that hold nothing toxic; those of other shape are not.

        The guard remembers short ones that it found clean.
        """
        found = identifiers_in(value)
        return frozenset(compress(found, await self._are_harmless(found)))

    async def _are_harmless(self, identifiers: Sequence[str]) -> list[bool]:
        return list(await asyncio.gather(*map(self._is_harmless, identifiers)))

    async def _is_harmless(self, identifier: str) -> bool:
        if identifier in CATEGORIES:
            return True
        try:
            # In a dict, because a string by itself would be prose.
            await self._adapter.moderate({"identifier": identifier})
        except BlockedError as error:
            self._counted(error.outcome)
            return False
        return True

    def _counted(self, outcome: Outcome) -> Outcome:
        note_outcome(outcome)
        if self._on_outcome is not None:
            self._on_outcome(outcome, self.guard.policy)
        return outcome


class PlainModerator(Moderator):
    """The same if there is no event loop, for answers in events: nothing that is awaited ever waits."""

    def __init__(
        self, guard: Guard, *, on_outcome: Callable[[Outcome, Policy], object] | None = None
    ) -> None:
        super().__init__(guard, on_outcome=on_outcome)
        self._adapter = SyncGuardAdapter(self.guard)

    def pushed(self) -> CompletionText:
        return cast("CompletionText", SyncGuardAdapter(self._segmentwise).push_stream())

    async def _judged(self, text: str) -> Outcome:
        return self._strict.check(text)

    async def _are_harmless(self, identifiers: Sequence[str]) -> list[bool]:
        return [await self._is_harmless(identifier) for identifier in identifiers]
