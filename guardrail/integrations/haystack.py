"""Haystack: a chat generator that says only what the guard released, in replies and to streaming callbacks.

    pipeline.add_component("llm", GuardedChatGenerator(OpenAIChatGenerator(), guard=guard))

Texts and reasoning are rewritten; calls of tools, and JSON that was asked for by ``response_format``, are
judged as a whole and never changed. Where something is blocked, the reply ends there in a refusal, or
BlockedError is raised under ``Policy(block="raise")``.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from guardrail.engine.adapters import at_once
from guardrail.errors import FailureError, UsageError
from guardrail.guard import Guard
from guardrail.integrations.completions.moderator import Moderator, PlainModerator
from guardrail.integrations.completions.speech import Said, Speech

try:
    from haystack import component, default_from_dict, default_to_dict
    from haystack.core.serialization import component_to_dict
    from haystack.dataclasses import ChatMessage, StreamingChunk
    from haystack.utils import deserialize_chatgenerator_inplace
except ModuleNotFoundError:
    raise FailureError("guardrail.integrations.haystack needs: pip install haystack-ai") from None

__all__ = ["GuardedChatGenerator"]

Show = Callable[[StreamingChunk], Any]


@component
class GuardedChatGenerator:
    """A chat generator for pipelines and agents around another one.

    guard   the guard that moderates, or its configuration file, with which a pipeline can be written to YAML;
            default: ``Guard()``
    """

    def __init__(self, chat_generator: Any, guard: Guard | str | None = None) -> None:
        self.chat_generator = chat_generator
        self.guard = guard
        self._guard = Guard.from_config(guard) if isinstance(guard, str) else guard or Guard()

    @component.output_types(replies=list[ChatMessage])
    def run(
        self,
        messages: list[ChatMessage],
        streaming_callback: Callable[..., Any] | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        tools: Any = None,
    ) -> dict[str, Any]:
        """The other generator's replies, moderated."""
        turn = self._turn(streaming_callback, generation_kwargs, PlainModerator)
        options = turn.options(generation_kwargs, tools)
        if turn.show is not None:
            options["streaming_callback"] = lambda chunk: at_once(turn.take(chunk))
        replies = self.chat_generator.run(messages=messages, **options)["replies"]
        at_once(turn.end())
        return {"replies": [at_once(turn.reply(reply)) for reply in replies]}

    @component.output_types(replies=list[ChatMessage])
    async def run_async(
        self,
        messages: list[ChatMessage],
        streaming_callback: Callable[..., Any] | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        tools: Any = None,
    ) -> dict[str, Any]:
        """The same without blocking the event loop."""
        turn = self._turn(streaming_callback, generation_kwargs, Moderator)
        options = turn.options(generation_kwargs, tools)
        if turn.show is not None:
            options["streaming_callback"] = turn.take
        replies = (await self.chat_generator.run_async(messages=messages, **options))["replies"]
        await turn.end()
        return {"replies": [await turn.reply(reply) for reply in replies]}

    def _turn(self, callback: Show | None, kwargs: dict[str, Any] | None, kind: type[Moderator]) -> _Turn:
        own = getattr(self.chat_generator, "generation_kwargs", None) or {}
        document = "response_format" in (kwargs or {}) or "response_format" in own
        show = callback or getattr(self.chat_generator, "streaming_callback", None)
        if show is not None:
            self._guard.stream(())  # a policy that no stream can keep is refused here and now
        return _Turn(lambda: Speech(self._guard, document=document, kind=kind), show)

    def to_dict(self) -> dict[str, Any]:
        """The component for a pipeline's YAML; UsageError for a guard that is not in a file."""
        if isinstance(self.guard, Guard):
            raise UsageError("a Guard cannot be written to YAML; pass the name of its configuration file")
        inner = component_to_dict(self.chat_generator, name="chat_generator")
        return default_to_dict(self, chat_generator=inner, guard=self.guard)  # type: ignore[no-any-return]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> GuardedChatGenerator:
        """The component that ``to_dict`` wrote."""
        deserialize_chatgenerator_inplace(data["init_parameters"], key="chat_generator")
        return default_from_dict(cls, data)  # type: ignore[no-any-return]


class _Turn:
    """One run: chunks on their way to a callback, and the replies."""

    def __init__(self, speech: Callable[[], Speech], show: Show | None) -> None:
        self.show, self._new, self._speech = show, speech, speech()
        self._held: list[StreamingChunk] = []
        self._latest: dict[str, StreamingChunk] = {}  # by kind of text

    def options(self, generation_kwargs: Any, tools: Any) -> dict[str, Any]:
        """The arguments that were given."""
        given = {"generation_kwargs": generation_kwargs, "tools": tools}
        return {name: value for name, value in given.items() if value is not None}

    async def take(self, chunk: StreamingChunk) -> None:
        """Shows what may be shown now; what is not prose waits for the end."""
        kind = "thinking" if chunk.reasoning else "text"
        text = chunk.reasoning.reasoning_text if chunk.reasoning else chunk.content
        if not text or self._speech.is_document(kind):
            self._held.append(chunk)
            return
        self._latest[kind] = replace(chunk, finish_reason=None)
        await self._tell(kind, self._speech.say(kind, kind, text))
        if chunk.finish_reason:
            self._held.append(replace(chunk, content="", reasoning=None))

    async def end(self) -> None:
        """Shows the rest, and what was held if it is clean."""
        for kind in self._latest:
            await self._tell(kind, self._speech.pause(kind))
        calls = [call.to_dict() for chunk in self._held for call in chunk.tool_calls or ()]
        document = "".join(chunk.content for chunk in self._held)
        if not self._speech.blocked and document:
            await self._speech.prose("text", document)
        spelled = "".join(call["arguments"] or "" for call in calls)
        names = [call["tool_name"] or "" for call in calls]
        if not self._speech.blocked and await self._speech.holds_clean([*names, spelled]):
            for chunk in self._held:
                await self._show(chunk)
        elif self.show is not None:
            await self._show(StreamingChunk(self._speech.refusal(), finish_reason="content_filter"))

    async def reply(self, reply: ChatMessage) -> ChatMessage:
        """The reply, moderated; the same object if it is clean."""
        speech = self._new()
        text = thought = None
        if reply.reasoning:
            thought = await speech.whole("thinking", 0, reply.reasoning.reasoning_text)
        if reply.text is not None and not speech.blocked:
            is_json = speech.is_document("text")
            text = await (
                speech.prose("text", reply.text) if is_json else speech.whole("text", 0, reply.text)
            )
        for call in reply.tool_calls:
            if not speech.blocked:
                await speech.holds_clean([call.tool_name, call.arguments])
        if not speech.blocked and text == reply.text and thought in (None, reply.reasoning.reasoning_text):
            return reply
        calls = [] if speech.blocked else reply.tool_calls
        meta = {name: value for name, value in reply.meta.items() if name != "logprobs"}
        if speech.blocked:
            text = (text or "" if not speech.keeps_nothing else "") + speech.refusal()
            meta["finish_reason"] = "content_filter"
        return ChatMessage.from_assistant(text, meta=meta, tool_calls=calls, reasoning=thought)

    async def _tell(self, kind: str, released: AsyncIterator[Said]) -> None:
        async for said in released:
            latest = self._latest[kind]
            thought = latest.reasoning and replace(latest.reasoning, reasoning_text=said.text)
            await self._show(replace(latest, content="" if thought else said.text, reasoning=thought))

    async def _show(self, chunk: StreamingChunk) -> None:
        shown = self.show(chunk) if self.show is not None else None
        if inspect.isawaitable(shown):
            await shown
