"""Chat models for tests, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable


def generic(*messages: AIMessage | str) -> GenericFakeChatModel:
    """LangChain's own fake: one message per call, streamed word by word."""
    return GenericFakeChatModel(messages=iter(messages))


def call(query: str, *, identity: str = "c1", name: str = "search") -> ToolCall:
    """A call of a tool."""
    return {"name": name, "args": {"query": query}, "id": identity, "type": "tool_call"}


class Scripted(BaseChatModel):
    """Streams given chunks and returns their sum: one list per call, the last one again and again."""

    script: list[list[AIMessageChunk]]
    turn: int = 0
    fails: bool = False

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        """The same model: its script calls tools of its own accord."""
        return self.bind(tools=[getattr(tool, "name", str(tool)) for tool in tools])

    def _next(self) -> list[AIMessageChunk]:
        chunks = self.script[min(self.turn, len(self.script) - 1)]
        self.turn += 1
        return chunks

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        first, *rest = self._next()
        if self.fails:
            raise ConnectionError("the model went away")
        message = message_chunk_to_message(sum(rest, first))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._next():
            yield ChatGenerationChunk(message=chunk.model_copy(deep=True))
        if self.fails:
            raise ConnectionError("the model went away")


def says(*texts: str, **fields: Any) -> AIMessageChunk:
    """A chunk with these texts joined."""
    return AIMessageChunk(content="".join(texts), **fields)


def calls(query: str, *, pieces: int = 3) -> list[AIMessageChunk]:
    """A call of the tool ``search`` in fragments, as providers stream it."""
    arguments = AIMessage("", tool_calls=[call(query)])
    text = AIMessageChunk(content="", tool_calls=arguments.tool_calls).tool_call_chunks[0]["args"] or ""
    step = -(-len(text) // pieces)
    cuts = [text[start : start + step] for start in range(0, len(text), step)]
    first = tool_call_chunk(name="search", args="", id="c1", index=0)
    fragments = [first, *(tool_call_chunk(args=cut, index=0) for cut in cuts)]
    return [AIMessageChunk(content="", tool_call_chunks=[fragment]) for fragment in fragments]


class Listener(BaseCallbackHandler):
    """Hears everything that callbacks are told of outputs."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.heard.append(repr((token, kwargs.get("chunk"))))

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.heard.append(repr(response))

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.heard.append(repr((error, kwargs.get("response"))))

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        self.heard.append(repr(outputs))

    def on_tool_start(self, serialized: Any, input_str: str, **kwargs: Any) -> None:
        self.heard.append(input_str)
