"""LangChain's PII middleware under the conformance kit: an agent with a detector of ours on its output."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import PIIMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from guardrail.testing import Detect, Harness, Subject, from_async


class Says(BaseChatModel):
    """A chat model that says a text, or chunks as they come."""

    text: str = ""
    chunks: Any = None

    @property
    def _llm_type(self) -> str:
        return "says"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text))])

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for text in self.chunks:
            chunk = ChatGenerationChunk(message=AIMessageChunk(text))
            if run_manager is not None:
                await run_manager.on_llm_new_token(text, chunk=chunk)
            yield chunk


class Peer(Harness):
    """Strategy ``redact``, ``apply_to_output=True``; streams are the text deltas of ``astream_events`` v3."""

    def judge(self, text: str) -> object:
        return [
            {"type": "word", "value": text[start:end], "start": start, "end": end}
            for start, end in self.found(text)
        ]

    max_reads = 132  # it reads its look-back of 128 characters again with each chunk
    nonsense = (None, "nonsense", 17, object())  # an empty list says that the text is clean

    def guard(self, detect: Detect) -> Subject:
        middleware = PIIMiddleware("word", detector=detect, strategy="redact", apply_to_output=True)
        asked = {"messages": [("user", "Say it.")]}

        def check(text: str) -> str:
            agent = create_agent(Says(text=text), middleware=[middleware])
            return str(agent.invoke(asked)["messages"][-1].content)

        async def stream(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
            agent = create_agent(Says(chunks=chunks), middleware=[middleware])
            run = await agent.astream_events(asked, version="v3")
            async for message in run.messages:
                async for piece in message.text:
                    yield piece

        return Subject(check, from_async(stream))
