"""The guard as the proxy uses it: one for prose, one that only detects, both counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Sequence
from dataclasses import replace
from itertools import compress

from guardrail.drive.stream import AsyncStream
from guardrail.errors import BlockedError
from guardrail.guard import Guard
from guardrail.integrations.openai_server.answers import Calls
from guardrail.integrations.openai_server.identifiers import CATEGORIES, identifiers_in
from guardrail.integrations.openai_server.metrics import Metrics
from guardrail.outcome import Action, Outcome
from guardrail.structured.identifiers import texts_of

__all__ = ["Moderator"]


class Moderator:
    """Moderates what a model says.

    ``guard`` decides about prose. Under ``Policy(block="raise")`` a blocked segment is replaced by the
    refusal, for a client is told of it by ``finish_reason``.
    """

    def __init__(self, guard: Guard, metrics: Metrics) -> None:
        policy = guard.policy
        self.guard = guard.with_policy(replace(policy, block="segment")) if policy.block == "raise" else guard
        self._strict = guard.with_policy(replace(policy, ladder=("block",), block="segment"))
        self._metrics = metrics

    @property
    def refusal(self) -> str:
        """What stands in place of a text that was withheld."""
        return self.guard.policy.refusal

    async def prose(self, text: str) -> Outcome:
        """The outcome of a text that people read."""
        return self._counted(await self.guard.acheck(text))

    def stream(self, chunks: AsyncIterable[str]) -> AsyncStream:
        """The text as it is released; ``settled`` wants its outcome."""
        return self.guard.astream(chunks)

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
