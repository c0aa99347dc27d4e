"""Pydantic AI: a model that says only what the guard released, in answers, streams and events alike.

Text and thinking are rewritten; calls of tools, structured output and other parts are judged as a whole. A
blocked answer ends in a refusal with the finish reason ``content_filter``, or raises BlockedError.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from guardrail.errors import FailureError, UsageError
from guardrail.guard import Guard
from guardrail.integrations.completions.speech import Said, Speech

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
JSON_MODES = ("native", "prompted")  # in these the text is the structured output


class GuardedModel(WrapperModel):  # type: ignore[misc]  # the package need not be there
    """A model of Pydantic AI, or the name of one, whose answers a guard moderates; default: ``Guard()``."""

    def __init__(self, wrapped: Any, *, guard: Guard | None = None) -> None:
        super().__init__(wrapped)
        self._guard = Guard() if guard is None else guard

    async def request(self, asked: Any, settings: Any, parameters: ModelRequestParameters) -> Any:
        """The other model's response, moderated."""
        response = await super().request(asked, settings, parameters)
        source = CompletedStreamedResponse(response, model_request_parameters=parameters, replay_events=True)
        stream = _GuardedStream(source, self._guard)
        _ = [event async for event in stream]
        return stream.get()

    @asynccontextmanager
    async def request_stream(self, asked: Any, settings: Any, parameters: Any, context: Any = None) -> Any:
        """The other model's stream, moderated: all its events together are what ``request`` gives."""
        self._guard.stream(())  # a policy that no stream can keep is refused here and now
        async with super().request_stream(asked, settings, parameters, context) as source:
            yield _GuardedStream(source, self._guard)

    def batch_decode(self, result: Any, request: Any) -> Any:
        """Refused."""
        raise UsageError("the guard has not seen answers of batches: moderate them with guard.check_many")


class _GuardedStream(StreamedResponse):  # type: ignore[misc]  # the package need not be there
    def __init__(self, source: StreamedResponse, guard: Guard) -> None:
        super().__init__(source.model_request_parameters)
        self._source = source
        self._speech = Speech(guard, document=source.model_request_parameters.output_mode in JSON_MODES)
        self._said: dict[Hashable, str] = {}  # the kind of each part that is prose

    async def _get_event_iterator(self) -> AsyncGenerator[Any, None]:
        try:
            async for event in self._source:
                async for shown in self._shown(event):
                    yield shown
                if self._speech.blocked:
                    break
        except Exception:
            async for shown in self._deltas(self._speech.pause()):
                yield shown
            raise
        async for shown in self._ended():
            yield shown

    async def _ended(self) -> AsyncGenerator[Any, None]:
        async for shown in self._deltas(self._speech.pause()):
            yield shown
        for index, part in enumerate(self._source.get().parts):
            if index not in self._said and self._parts_manager.get_part_by_vendor_id(index) != part:
                async for shown in self._judged(index, part):
                    yield shown
        if self._speech.blocked:
            refusal = messages.TextPart(self._speech.refusal())
            self.finish_reason = "content_filter"
            yield self._parts_manager.handle_part(vendor_part_id="refusal", part=refusal)

    async def _shown(self, event: Any) -> AsyncGenerator[Any, None]:
        index, step, part = getattr(event, "index", -1), event.event_kind, getattr(event, "part", None)
        if step == "part_start" and isinstance(part, PROSE) and not self._speech.is_document(part.part_kind):
            self._said[index] = part.part_kind
            yield self._parts_manager.handle_part(vendor_part_id=index, part=type(part)(""))
        if index in self._said:
            kind, text = self._said[index], part.content if part else event.delta.content_delta
            pieces = (
                self._speech.say(kind, index, text or "") if step != "part_end" else self._speech.pause(kind)
            )
            released = self._deltas(pieces)
        elif step == "part_end" or (step == "part_start" and not isinstance(part, IN_PIECES)):
            released = self._judged(index, part)
        else:
            return
        async for shown in released:
            yield shown

    async def _deltas(self, released: AsyncIterator[Said]) -> AsyncGenerator[Any, None]:
        async for said in released:
            kind = self._said[said.key]
            handle = getattr(self._parts_manager, f"handle_{kind}_delta")
            for shown in handle(vendor_part_id=said.key, content=said.text):
                yield shown

    async def _judged(self, index: int, part: Any) -> AsyncGenerator[Any, None]:
        if self._speech.blocked:
            return
        if isinstance(part, messages.TextPart):
            clean = await self._speech.prose("text", part.content) is not None
        else:
            read = {name: value for name, value in to_jsonable_python(part).items() if name not in UNREAD}
            clean = await self._speech.holds_clean(read)
        if clean:
            yield self._parts_manager.handle_part(vendor_part_id=index, part=part)

    def get(self) -> Any:
        """The response so far; a part whose text is the same is the other model's own."""
        source, find = self._source.get(), self._parts_manager.get_part_by_vendor_id
        self.state = self._source.state
        pairs = [(find(index), part) for index, part in enumerate(source.parts)]
        parts = [part if _is_same(made, part) else made for made, part in pairs if made]
        if refusal := find("refusal"):
            parts = [*([] if self._speech.keeps_nothing else parts), refusal]
        reason = self.finish_reason or source.finish_reason
        return replace(source, parts=parts, state=super().get().state, finish_reason=reason)

    close_stream = property(lambda self: self._source.close_stream)
    usage = property(lambda self: self._source.usage)
    model_name = property(lambda self: self._source.model_name)
    provider_name = property(lambda self: self._source.provider_name)
    provider_url = property(lambda self: self._source.provider_url)
    timestamp = property(lambda self: self._source.timestamp)


def _is_same(made: Any, part: Any) -> bool:
    return not isinstance(made, PROSE) or made.content == part.content
