"""Haystack: a chat generator that says only what the guard released, in replies and to streaming callbacks.

    pipeline.add_component("llm", GuardedChatGenerator(OpenAIChatGenerator(), guard=guard))

Texts and reasoning are rewritten; calls of tools, and JSON that was asked for by ``response_format``, are
judged as a whole. A blocked reply ends in a refusal, or raises BlockedError.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from guardrail.engine.adapters import at_once
from guardrail.errors import FailureError
from guardrail.guard import Guard
from guardrail.integrations.completions.moderator import Moderator, PlainModerator
from guardrail.integrations.completions.speech import Said, Speech

try:
    from haystack import component
    from haystack.dataclasses import ChatMessage, StreamingChunk
except ModuleNotFoundError:
    raise FailureError("guardrail.integrations.haystack needs: pip install haystack-ai") from None

__all__ = ["GuardedChatGenerator"]

Show = Callable[[StreamingChunk], Any]


@component
class GuardedChatGenerator:
    """A chat generator for pipelines and agents around another one; ``guard`` is ``Guard()`` by default."""

    def __init__(self, chat_generator: Any, guard: Guard | None = None) -> None:
        self.chat_generator = chat_generator
        self._guard = Guard() if guard is None else guard

    @component.output_types(replies=list[ChatMessage])  # type: ignore[untyped-decorator]  # not here
    def run(
        self,
        messages: list[ChatMessage],
        streaming_callback: Callable[..., Any] | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        tools: Any = None,
    ) -> dict[str, Any]:
        """The other generator's replies, moderated."""
        turn = self._turn(streaming_callback, generation_kwargs, PlainModerator)
        given = {"generation_kwargs": generation_kwargs, "tools": tools}
        options = {name: value for name, value in given.items() if value is not None}
        if turn.show is not None:
            options["streaming_callback"] = lambda chunk: at_once(turn.take(chunk))
        replies = self.chat_generator.run(messages=messages, **options)["replies"]
        at_once(turn.end())
        return {"replies": [at_once(turn.reply(reply)) for reply in replies]}

    @component.output_types(replies=list[ChatMessage])  # type: ignore[untyped-decorator]  # not here
    async def run_async(
        self,
        messages: list[ChatMessage],
        streaming_callback: Callable[..., Any] | None = None,
        generation_kwargs: dict[str, Any] | None = None,
        tools: Any = None,
    ) -> dict[str, Any]:
        """The same without blocking the event loop."""
        turn = self._turn(streaming_callback, generation_kwargs, Moderator)
        given = {"generation_kwargs": generation_kwargs, "tools": tools}
        options = {name: value for name, value in given.items() if value is not None}
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


class _Turn:
    def __init__(self, speech: Callable[[], Speech], show: Show | None) -> None:
        self.show, self._new, self._speech = show, speech, speech()
        self._held: list[StreamingChunk] = []
        self._latest: dict[str, StreamingChunk] = {}  # by kind of text

    async def take(self, chunk: StreamingChunk) -> None:
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
        same = thought == (reply.reasoning and reply.reasoning.reasoning_text) and text == reply.text
        if same and not speech.blocked:
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
