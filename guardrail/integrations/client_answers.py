"""Answers in events, moderated where a client gets them: OpenAI's responses and Anthropic's messages.

Every method of such an API asks through ``_post`` or ``_get`` of its resource, so that whole answers,
streams, stream helpers and parsed answers are moderated alike.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from guardrail.engine.adapters import as_async, at_once, run_sync
from guardrail.errors import UsageError
from guardrail.guard import Guard
from guardrail.integrations.completions.moderator import Moderator, PlainModerator
from guardrail.integrations.completions.turn import AnswerApi, Turn
from guardrail.integrations.strict_json import JsonObject

__all__ = ["Refused", "guard_resource"]


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
        turn = _ClientTurn(guard, api, kwargs, PlainModerator)
        if kwargs.get("stream"):
            guard.stream(())  # a policy that no stream can keep is refused here and now
        result = asks(*args, **kwargs)
        if isinstance(result, streams):
            return turn.streamed(result, is_async=False)
        return at_once(turn.whole(result))

    return ask


def _asking_async(
    asks: Callable[..., Any], guard: Guard, api: AnswerApi, streams: tuple[type, ...]
) -> Callable[..., Any]:
    async def ask(*args: Any, **kwargs: Any) -> Any:
        turn = _ClientTurn(guard, api, kwargs, Moderator)
        if kwargs.get("stream"):
            guard.stream(())
        result = await asks(*args, **kwargs)
        if isinstance(result, streams):
            return turn.streamed(result, is_async=True)
        return await turn.whole(result)

    return ask


class _ClientTurn:
    """One request of a client and its answer. What parses the answer is taken out of the request's options,
    for it must see the moderated one.
    """

    def __init__(self, guard: Guard, api: AnswerApi, request: dict[str, Any], kind: type[Moderator]) -> None:
        body = request.get("body")
        self._turn = Turn(guard, api, body if isinstance(body, dict) else {}, kind=kind)
        options = dict(request.get("options") or {})
        self._parser = options.pop("post_parser", None)
        if self._parser is not None:
            request["options"] = options

    async def whole(self, result: Any) -> Any:
        """The client's object with a moderated answer; the very same one if nothing changed."""
        answer = _content_of(result)
        if answer is not None:
            shown = await self._turn.whole(answer)
            result = result if shown == answer else _rebuilt(result, shown)
        return result if self._parser is None else self._parser(result)

    def streamed(self, stream: Any, *, is_async: bool) -> Any:
        """The client's stream, which reads moderated events."""
        if is_async:
            stream._iterator = self._events(stream, stream._iterator)
        else:
            stream._iterator = run_sync(self._events(stream, as_async(stream._iterator)))
        return stream

    def _events(self, stream: Any, events: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
        def rebuilt(content: JsonObject) -> Any:
            return stream._client._process_response_data(
                data=content, cast_to=stream._cast_to, response=stream.response
            )

        return self._turn.events(events, content_of=_content_of, rebuilt=rebuilt)


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
