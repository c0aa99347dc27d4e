"""Pydantic AI: a model that says only what the guard released, in answers, streams and events alike.

    agent = Agent(GuardedModel("openai:gpt-5", guard=guard))

Text and thinking are rewritten, in a stream sentence by sentence; calls of tools, structured output of every
mode and parts of other kinds are judged as a whole and never changed. Where something is blocked, the answer
ends there in a refusal with the finish reason ``content_filter``, or BlockedError is raised under
``Policy(block="raise")``. Needs the package ``pydantic-ai-slim``, 2.60 or newer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from guardrail.engine.steps import PAUSE, Pause
from guardrail.errors import FailureError, UsageError
from guardrail.guard import Guard
from guardrail.integrations.completions.answer import Asked, ModeratedAnswer
from guardrail.integrations.completions.turn import Blocking

try:
    from pydantic_ai import messages
    from pydantic_ai.models import CompletedStreamedResponse, ModelRequestParameters, StreamedResponse
    from pydantic_ai.models.wrapper import WrapperModel
    from pydantic_core import to_jsonable_python
except ModuleNotFoundError:
    raise FailureError("guardrail.integrations.pydantic_ai needs: pip install pydantic-ai-slim") from None

__all__ = ["GuardedModel"]

PROSE = (messages.TextPart, messages.ThinkingPart)
IN_PIECES = (*PROSE, messages.BaseToolCallPart)
UNREAD = ("id", "tool_call_id", "provider_details", "provider_name", "timestamp")
"""Fields of parts that nobody reads."""
JSON_MODES = ("native", "prompted")
"""Output modes in which the text is the structured output."""


class GuardedModel(WrapperModel):  # type: ignore[misc]  # the package need not be there
    """A model of Pydantic AI, or the name of one, whose answers a guard moderates; default: ``Guard()``."""

    def __init__(self, wrapped: Any, *, guard: Guard | None = None) -> None:
        super().__init__(wrapped)
        self._guard = Guard() if guard is None else guard

    async def request(self, asked: Any, settings: Any, parameters: ModelRequestParameters) -> Any:
        """The other model's response, moderated."""
        response = await super().request(asked, settings, parameters)
        source = CompletedStreamedResponse(
            response, model_request_parameters=parameters, replay_events=True
        )
        stream = _GuardedStream(source, self._guard)
        async for _ in stream:
            pass
        return replace(stream.get(), state=response.state)

    @asynccontextmanager
    async def request_stream(self, asked: Any, settings: Any, parameters: Any, context: Any = None) -> Any:
        """The other model's stream, moderated: all its events together are what ``request`` gives."""
        self._guard.stream(())  # a policy that no stream can keep is refused here and now
        async with super().request_stream(asked, settings, parameters, context) as source:
            yield _GuardedStream(source, self._guard)

    def batch_decode(self, result: Any, request: Any) -> Any:
        """Refused: answers of batches come past the guard."""
        raise UsageError("the guard has not seen answers of batches: moderate them with guard.check_many")


class _Answer(ModeratedAnswer):
    document_kind = "text"


class _GuardedStream(StreamedResponse):  # type: ignore[misc]  # the package need not be there
    """Parts keep their indexes as ids; what a provider says beside a text comes with the response alone."""

    def __init__(self, source: StreamedResponse, guard: Guard) -> None:
        super().__init__(source.model_request_parameters)
        self._source = source
        self._blocking = Blocking(guard)
        is_json = source.model_request_parameters.output_mode in JSON_MODES
        self._answer = _Answer(self._blocking.moderator, Asked(document=is_json))
        self._said: dict[int, str] = {}  # the kind of each part that is prose
        self._speaking: dict[str, int] = {}  # the part of each kind that is not all judged

    async def _get_event_iterator(self) -> AsyncGenerator[Any, None]:
        failure: Exception | None = None
        try:
            async for event in self._source:
                async for shown in self._shown(event):
                    yield shown
                if self._answer.blocked:
                    break
        except Exception as error:  # noqa: BLE001  # raised behind what is clean so far
            failure = error
        for kind in self._speaking:
            async for shown in self._pushed(kind, PAUSE):
                yield shown
        if failure is not None:
            raise failure
        for index, part in enumerate(self._source.get().parts):  # calls with fragments behind their ends
            same = index in self._said or self._parts_manager.get_part_by_vendor_id(index) == part
            async for shown in self._judged(index, part, skip=same or self._answer.blocked):
                yield shown
        if self._answer.blocked:
            self._blocking.on_blocked()
            self.finish_reason = "content_filter"
            part = messages.TextPart(self._blocking.moderator.refusal)
            yield self._parts_manager.handle_part(vendor_part_id="refusal", part=part)

    async def _shown(self, event: Any) -> AsyncGenerator[Any, None]:
        """What may be shown now that this event came."""
        released: AsyncIterator[Any]
        index = getattr(event, "index", -1)
        if event.event_kind == "part_delta" and index in self._said:
            released = self._continued(index, event.delta.content_delta or "")
        elif event.event_kind == "part_end" and index in self._said:
            released = self._pushed(self._said[index], PAUSE)
        elif event.event_kind == "part_start" and self._is_prose(event.part):
            self._said[index] = event.part.part_kind
            yield self._parts_manager.handle_part(vendor_part_id=index, part=type(event.part)(""))
            released = self._continued(index, event.part.content)
        else:
            is_whole = event.event_kind == "part_start" and not isinstance(event.part, IN_PIECES)
            skip = not is_whole and event.event_kind != "part_end"
            released = self._judged(index, getattr(event, "part", None), skip=skip)
        async for shown in released:
            yield shown

    async def _continued(self, index: int, text: str) -> AsyncGenerator[Any, None]:
        kind = self._said[index]
        if self._speaking.get(kind, index) != index:  # what came before is judged before what comes now
            async for shown in self._pushed(kind, PAUSE):
                yield shown
        self._speaking[kind] = index
        async for shown in self._pushed(kind, text):
            yield shown

    async def _pushed(self, kind: str, piece: str | Pause) -> AsyncGenerator[Any, None]:
        voice, manager = self._answer.voice(kind), self._parts_manager
        handle = manager.handle_text_delta if kind == "text" else manager.handle_thinking_delta
        async for text in voice.push(piece):
            for shown in handle(vendor_part_id=self._speaking[kind], content=text):
                yield shown
        self._answer.blocked |= voice.blocked

    async def _judged(self, index: int, part: Any, *, skip: bool) -> AsyncGenerator[Any, None]:
        """A part that is not rewritten, if it is clean."""
        if skip:
            return
        if isinstance(part, messages.TextPart):
            clean = await self._answer.prose("text", part.content) is not None
        else:
            read = {name: value for name, value in to_jsonable_python(part).items() if name not in UNREAD}
            clean = await self._answer.is_clean_call(self._answer.surroundings.strings(read))
        if clean:
            yield self._parts_manager.handle_part(vendor_part_id=index, part=part)

    def _is_prose(self, part: Any) -> bool:
        return isinstance(part, PROSE) and not self._answer.is_document(part.part_kind)

    def get(self) -> Any:
        """The response so far; a part whose text is the same is the other model's own."""
        source, own, find = self._source.get(), super().get(), self._parts_manager.get_part_by_vendor_id
        pairs = [(find(index), part) for index, part in enumerate(source.parts)]
        parts = [part if part == replace(part, **_text(made)) else made for made, part in pairs if made]
        if refusal := find("refusal"):
            parts = [*([] if self._blocking.block_whole else parts), refusal]
        attempts = own.failed_attempts or source.failed_attempts
        reason = own.finish_reason or source.finish_reason
        state = source.state if source.state == "suspended" else own.state
        return replace(source, parts=parts, state=state, finish_reason=reason, failed_attempts=attempts)

    async def close_stream(self) -> None:
        """Closes the other model's stream."""
        await self._source.close_stream()

    def get_stream_cancel_errors(self) -> Any:
        """As the other model's stream has them."""
        return self._source.get_stream_cancel_errors()

    usage = property(lambda self: self._source.usage)
    model_name = property(lambda self: self._source.model_name)
    provider_name = property(lambda self: self._source.provider_name)
    provider_url = property(lambda self: self._source.provider_url)
    timestamp = property(lambda self: self._source.timestamp)


def _text(part: Any) -> dict[str, Any]:
    """What a part that was shown says, if it is prose."""
    return {"content": part.content} if isinstance(part, PROSE) else {}
