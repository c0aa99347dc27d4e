"""Answers in events, moderated where a client gets them: OpenAI's responses and Anthropic's messages.

Every method of such an API asks through ``_post`` or ``_get`` of its resource, so that whole answers,
streams, stream helpers and parsed answers are moderated alike.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from guardrail.engine.adapters import as_async, run_sync
from guardrail.errors import BlockedError, FailureError, UsageError
from guardrail.guard import Guard
from guardrail.integrations.completions.event_stream import EventStream
from guardrail.integrations.completions.moderator import Moderator, PlainModerator
from guardrail.integrations.strict_json import JsonObject
from guardrail.outcome import Action, Outcome
from guardrail.policy import Policy

__all__ = ["AnswerApi", "Refused", "guard_resource"]


class AnswerApi(Protocol):
    """One API as it is moderated."""

    def holds(self, answer: JsonObject) -> bool:
        """True for an answer that is to be moderated."""
        ...

    async def whole(
        self, answer: JsonObject, asked: JsonObject, moderator: Moderator, on_blocked: Callable[[], object]
    ) -> JsonObject:
        """A whole answer, moderated."""
        ...

    def stream(
        self, asked: JsonObject, moderator: Moderator, write: Any, on_blocked: Callable[[], object]
    ) -> EventStream:
        """A streamed one."""
        ...


def guard_resource(resource: Any, *, guard: Guard, api: AnswerApi, streams: tuple[type, ...]) -> None:
    """Has a client's resource give moderated answers; ``streams`` are the classes of the client's streams."""
    for name in ("_post", "_get"):
        asks = getattr(resource, name)
        is_async = inspect.iscoroutinefunction(asks)
        setattr(resource, name, (_asking_async if is_async else _asking)(asks, guard, api, streams))


def _asking(
    asks: Callable[..., Any], guard: Guard, api: AnswerApi, streams: tuple[type, ...]
) -> Callable[..., Any]:
    def ask(*args: Any, **kwargs: Any) -> Any:
        turn = _Turn(guard, api, kwargs, PlainModerator)
        if kwargs.get("stream"):
            guard.stream(())  # a policy that no stream can keep is refused here and now
        result = asks(*args, **kwargs)
        if isinstance(result, streams):
            return turn.streamed(result, is_async=False)
        return _at_once(turn.whole(result))

    return ask


def _asking_async(
    asks: Callable[..., Any], guard: Guard, api: AnswerApi, streams: tuple[type, ...]
) -> Callable[..., Any]:
    async def ask(*args: Any, **kwargs: Any) -> Any:
        turn = _Turn(guard, api, kwargs, Moderator)
        if kwargs.get("stream"):
            guard.stream(())
        result = await asks(*args, **kwargs)
        if isinstance(result, streams):
            return turn.streamed(result, is_async=True)
        return await turn.whole(result)

    return ask


class _Turn:
    """One request of a client and its answer. What parses the answer is taken out of the request's options,
    for it must see the moderated one.
    """

    def __init__(self, guard: Guard, api: AnswerApi, request: dict[str, Any], kind: type[Moderator]) -> None:
        self._api = api
        self._guard = guard
        self._raises = guard.policy.block == "raise"
        self._blocked: Outcome | None = None
        self._moderator = kind(guard, on_outcome=self._note)
        body = request.get("body")
        self._asked = body if isinstance(body, dict) else {}
        options = dict(request.get("options") or {})
        self._parser = options.pop("post_parser", None)
        if self._parser is not None:
            request["options"] = options

    async def whole(self, result: Any) -> Any:
        """The client's object with a moderated answer; the very same one if nothing changed."""
        answer = _content_of(result)
        if answer is not None and self._api.holds(answer):
            shown = await self._api.whole(answer, self._asked, self._moderator, self._on_blocked)
            if self._moderator.guard.policy.enforce and shown != answer:
                result = _rebuilt(result, shown)
        return result if self._parser is None else self._parser(result)

    def streamed(self, stream: Any, *, is_async: bool) -> Any:
        """The client's stream, which reads moderated events."""
        is_enforced = self._guard.policy.enforce
        pass_on = partial(self._events, stream) if is_enforced else self._passed_on
        if is_async:
            stream._iterator = pass_on(stream._iterator)
        else:
            stream._iterator = run_sync(pass_on(as_async(stream._iterator)))
        return stream

    async def _passed_on(self, events: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        """The events as they come, in monitor mode; they are judged behind their end."""
        seen: list[JsonObject | None] = []
        try:
            async for event in events:
                seen.append(_content_of(event))
                yield event
                del event  # an error of the next one shows this frame
        finally:
            self._guard.defer(partial(_at_once, self._judged(seen)))

    async def _judged(self, seen: Sequence[JsonObject | None]) -> None:
        moderator = PlainModerator(self._guard)
        moderated = self._api.stream(self._asked, moderator, _dropped, lambda: None)
        try:
            for event in seen:
                await moderated.take(event)
            if not moderated.is_over:
                await moderated.break_off()
        finally:
            await moderated.close()

    async def _events(self, stream: Any, events: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        ready: list[JsonObject] = []

        async def write(event: JsonObject) -> None:
            ready.append(event)

        def taken() -> list[Any]:
            shown, ready[:] = ready[:], []
            return [self._event(stream, each) for each in shown]

        moderated = self._api.stream(self._asked, self._moderator, write, self._on_blocked)
        try:
            async for event in events:
                await moderated.take(_content_of(event))
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

    def _event(self, stream: Any, content: JsonObject) -> Any:
        return stream._client._process_response_data(
            data=content, cast_to=stream._cast_to, response=stream.response
        )

    def _note(self, outcome: Outcome, policy: Policy) -> None:
        if outcome.action is Action.BLOCKED:
            self._blocked = outcome

    def _on_blocked(self) -> None:
        if self._raises and self._blocked is not None:
            shown = self._blocked.text.removesuffix(self._moderator.refusal)
            raise BlockedError(replace(self._blocked, text=shown))


async def _dropped(event: JsonObject) -> None:
    """Takes an event that was shown already."""


def _content_of(result: Any) -> JsonObject | None:
    """A client's object as JSON; None for anything else."""
    to_dict = getattr(result, "to_dict", None)
    if to_dict is None:
        return None
    content: JsonObject = to_dict(mode="json", warnings=False)
    return content


def _rebuilt(result: Any, content: JsonObject) -> Any:
    """An object of the same class with another content, and the id of the same request."""
    rebuilt = type(result).construct(**content)
    request_id = getattr(result, "_request_id", None)
    if request_id is not None:
        rebuilt._request_id = request_id
    return rebuilt


def _at_once(waiting: Coroutine[Any, Any, Any]) -> Any:
    """What comes of a coroutine that never waits."""
    try:
        waiting.send(None)
    except StopIteration as end:
        return end.value
    finally:
        waiting.close()
    raise RuntimeError("a step waited for an event loop, and there is none")


class Refused:
    """Stands where a way past the guard would be; ``use`` names the way that leads through it."""

    def __init__(self, name: str, *, use: str) -> None:
        self._name = name
        self._use = use

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._error()

    def __getattr__(self, name: str) -> Any:
        raise self._error()

    def _error(self) -> UsageError:
        return UsageError(
            f"client.{self._name} gives answers that the guard has not seen: use {self._use}, "
            "with stream=True for a stream, or the client itself if nothing is to be moderated"
        )
