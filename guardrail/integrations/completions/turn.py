"""One answer of a model, moderated in process: whole or in events, and what is raised where it is blocked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from guardrail.engine.adapters import at_once
from guardrail.errors import BlockedError, FailureError
from guardrail.guard import Guard
from guardrail.integrations.completions.event_stream import EventStream
from guardrail.integrations.completions.moderator import Moderator, PlainModerator
from guardrail.integrations.strict_json import JsonObject
from guardrail.outcome import Action, Outcome
from guardrail.policy import Policy

__all__ = ["AnswerApi", "Blocking", "Turn"]


class AnswerApi(Protocol):
    """One API as it is moderated."""

    def holds(self, answer: JsonObject) -> bool:
        """True for an answer that is to be moderated."""
        ...

    async def whole(
        self,
        answer: JsonObject,
        asked: JsonObject,
        moderator: Moderator,
        on_blocked: Callable[[], object],
    ) -> JsonObject:
        """A whole answer, moderated."""
        ...

    def stream(
        self, asked: JsonObject, moderator: Moderator, write: Any, on_blocked: Callable[[], object]
    ) -> EventStream:
        """A streamed one."""
        ...


class Blocking:
    """A moderator, and what happens where it blocks: nothing, or BlockedError under ``block="raise"``.

    ``block_whole`` is true where a blocked answer keeps none of its text.
    """

    def __init__(self, guard: Guard, *, kind: type[Moderator] = Moderator) -> None:
        self.block_whole = guard.policy.block == "whole"
        self._raises = guard.policy.block == "raise"
        self._blocked: Outcome | None = None
        self.moderator = kind(guard, on_outcome=self._note)

    def on_blocked(self) -> None:
        """Called before the refusal is shown; raises in its place if the policy says so."""
        if self._raises and self._blocked is not None:
            shown = self._blocked.text.removesuffix(self.moderator.refusal)
            raise BlockedError(replace(self._blocked, text=shown))

    def _note(self, outcome: Outcome, policy: Policy) -> None:
        if outcome.action is Action.BLOCKED:
            self._blocked = outcome


class Turn(Blocking):
    """One answer of an API. ``asked`` is the request, as JSON."""

    def __init__(
        self,
        guard: Guard,
        api: AnswerApi,
        asked: JsonObject,
        *,
        kind: type[Moderator] = Moderator,
    ) -> None:
        super().__init__(guard, kind=kind)
        self._guard = guard
        self._api = api
        self._asked = asked

    async def whole(self, answer: JsonObject) -> JsonObject:
        """The answer as it may be shown; what is not one comes back as it is."""
        if not self._api.holds(answer):
            return answer
        shown = await self._api.whole(answer, self._asked, self.moderator, self.on_blocked)
        return shown if self._guard.policy.enforce else answer

    def events(
        self,
        events: AsyncIterator[Any],
        *,
        content_of: Callable[[Any], JsonObject | None],
        rebuilt: Callable[[JsonObject], Any],
    ) -> AsyncGenerator[Any, None]:
        """The events of a streamed answer as they may be shown; an error comes behind what is clean so far.

        ``content_of`` gives an event as JSON, ``rebuilt`` an event of the same kind as ``events`` had.
        """
        if not self._guard.policy.enforce:
            return self._passed_on(events, content_of)
        return self._moderated(events, content_of, rebuilt)

    async def _passed_on(
        self, events: AsyncIterator[Any], content_of: Callable[[Any], JsonObject | None]
    ) -> AsyncGenerator[Any, None]:
        """The events as they come, in monitor mode; they are judged behind their end."""
        seen: list[JsonObject | None] = []
        try:
            async for event in events:
                seen.append(content_of(event))
                yield event
                del event  # an error of the next one shows this frame
        finally:
            self._guard.defer(lambda: at_once(self._judged(seen)))

    async def _judged(self, seen: Sequence[JsonObject | None]) -> None:
        """Judges events that were shown already."""
        moderated = self._api.stream(self._asked, PlainModerator(self._guard), _dropped, lambda: None)
        try:
            for event in seen:
                await moderated.take(event)
            if not moderated.is_over:
                await moderated.break_off()
        finally:
            await moderated.close()

    async def _moderated(
        self,
        events: AsyncIterator[Any],
        content_of: Callable[[Any], JsonObject | None],
        rebuilt: Callable[[JsonObject], Any],
    ) -> AsyncGenerator[Any, None]:
        ready: list[JsonObject] = []

        async def write(event: JsonObject) -> None:
            ready.append(event)

        def taken() -> list[Any]:
            shown, ready[:] = ready[:], []
            return [rebuilt(each) for each in shown]

        moderated = self._api.stream(self._asked, self.moderator, write, self.on_blocked)
        try:
            async for event in events:
                await moderated.take(content_of(event))
                del event  # an error of the next one shows this frame
                for shown in taken():
                    yield shown
                if moderated.is_over:
                    return
            await moderated.break_off()
        except Exception as error:
            if not isinstance(error, (BlockedError, FailureError)):
                await moderated.break_off()
            for shown in taken():
                yield shown
            raise
        finally:
            await moderated.close()
        for shown in taken():
            yield shown


async def _dropped(event: JsonObject) -> None:
    """Takes an event that was shown already."""
