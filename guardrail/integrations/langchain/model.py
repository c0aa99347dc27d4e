"""A chat model that says only what a guard released, in its tokens, events and traces alike."""

from __future__ import annotations

import json
import operator
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import reduce
from typing import Any, TypeVar, cast, overload

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, BaseMessageChunk
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableParallel, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.fallbacks import RunnableWithFallbacks
from pydantic import PrivateAttr

from guardrail.engine.adapters import AsyncGuardAdapter, SyncGuardAdapter, as_async, run_sync
from guardrail.errors import WithoutFrames
from guardrail.events import fingerprint
from guardrail.guard import Guard
from guardrail.integrations.langchain.chunks import blank
from guardrail.integrations.langchain.runnable import GuardedRunnable
from guardrail.integrations.langchain.streaming import moderated
from guardrail.structured.paths import parse_paths

__all__ = ["GuardedChatModel", "is_signed", "wrap"]

Input = TypeVar("Input")
Output = TypeVar("Output")

SIGNATURE = "guardrail"
"""The key in ``response_metadata`` under which a message says that a guard released it as it is."""


class GuardedChatModel(BaseChatModel):
    """A chat model around another one, which runs beneath the callbacks: they hear of moderated text only.

    Settings that any chat model has (cache, rate limiter, callbacks, tags, profile) are those of the other.
    Streams are switched off if they cannot be moderated: under ``Policy(block="whole")`` and with paths.
    """

    _model: BaseChatModel = PrivateAttr()
    _guard: Guard = PrivateAttr()
    _paths: tuple[str, ...] = PrivateAttr()

    def __init__(self, model: BaseChatModel, *, guard: Guard, paths: Sequence[str] = ()) -> None:
        settings = {name: getattr(model, name) for name in BaseChatModel.model_fields}
        if not guard.policy.can_stream or paths or not _streams(model):
            settings["disable_streaming"] = True
        super().__init__(**settings)
        self._model, self._guard, self._paths = model, guard, tuple(paths)

    @property
    def model_name(self) -> str | None:
        """The other model's name, under which agents look up what it can do."""
        names = (getattr(self._model, name, None) for name in ("model_name", "model", "model_id"))
        return next((name for name in names if isinstance(name, str)), None)

    @property
    def _llm_type(self) -> str:
        return self._model._llm_type

    @property
    def _identifying_params(self) -> dict[str, Any]:
        own = {"policy": self._guard.policy.digest(), "paths": self._paths}
        return {**self._model._identifying_params, SIGNATURE: own}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return self._model._get_ls_params(stop=stop, **kwargs)

    def guarded_by(self, guard: Guard) -> bool:
        """True if this guard moderates the model already."""
        return self._guard is guard

    def raising(self) -> GuardedChatModel:
        """The same model for callers who need an answer of a certain form, which no refusal has.

        It raises BlockedError in place of a refusal.
        """
        policy = replace(self._guard.policy, block="raise")
        if policy == self._guard.policy:
            return self
        return GuardedChatModel(self._model, guard=self._guard.with_policy(policy), paths=self._paths)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        """The other model with its tools, moderated in the same way.

        A model that must call one of them, or answer in a given format, raises BlockedError for a refusal.
        """
        bound = self._model.bind_tools(tools, **kwargs)
        guarded = self.raising() if _has_form(kwargs) else self
        return _with_models(bound, guarded.around) or wrap(guarded._guard, bound)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[Any, Any]:
        """What the other model makes of it, by whichever method, with moderated answers.

        BlockedError is raised for a flagged answer.
        """
        bare = self._model.with_structured_output(schema, include_raw=include_raw, **kwargs)
        guarded = self.raising()
        return _with_models(bare, guarded.around, chains=True) or wrap(guarded._guard, bare)

    def around(self, model: BaseChatModel) -> BaseChatModel:
        """Another model, moderated as this one is."""
        if isinstance(model, GuardedChatModel) and model.guarded_by(self._guard):
            return model
        return GuardedChatModel(model, guard=self._guard, paths=self._paths)

    def get_token_ids(self, text: str) -> list[int]:
        """As the other model counts."""
        return self._model.get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """As the other model counts."""
        return self._model.get_num_tokens(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """As the other model counts."""
        return self._model.get_num_tokens_from_messages(messages, tools)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with WithoutFrames():
            return self._released(self._model._generate(messages, stop=stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with WithoutFrames():
            return await self._areleased(await self._model._agenerate(messages, stop=stop, **kwargs))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        source = self._model._stream(messages, stop=stop, **kwargs)
        chunks = moderated(_chunks(as_async(source)), SyncGuardAdapter(self._guard), paths=())
        with WithoutFrames():
            yield from run_sync(_signed_chunks(chunks))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        source = self._model._astream(messages, stop=stop, **kwargs)
        chunks = moderated(_chunks(source), AsyncGuardAdapter(self._guard), paths=())
        with WithoutFrames():
            async with aclosing(_signed_chunks(chunks)) as signed:
                async for chunk in signed:
                    yield chunk
                    del chunk  # an error of the next one shows this frame

    def _released(self, result: ChatResult) -> ChatResult:
        messages = [_message(generated) for generated in result.generations]
        released = self._guard.moderate(messages, paths=self._listed())
        return _result(released, self._guard.moderate(result.llm_output))

    async def _areleased(self, result: ChatResult) -> ChatResult:
        messages = [_message(generated) for generated in result.generations]
        released = await self._guard.amoderate(messages, paths=self._listed())
        return _result(released, await self._guard.amoderate(result.llm_output))

    def _listed(self) -> list[str]:
        return [f"[].{path}" for path in self._paths]


@overload
def wrap(  # type: ignore[overload-overlap]  # a chat model is a runnable from messages to a message
    guard: Guard, runnable: BaseChatModel, *, paths: Sequence[str] = ()
) -> BaseChatModel: ...
@overload
def wrap(
    guard: Guard, runnable: Runnable[Input, Output], *, paths: Sequence[str] = ()
) -> Runnable[Input, Output]: ...
def wrap(guard: Guard, runnable: Runnable[Any, Any], *, paths: Sequence[str] = ()) -> Runnable[Any, Any]:
    """A runnable with the same input and output types that gives out moderated values only.

    Text and message chunks are streamed as soon as they are judged; other chunks, and every stream with
    ``paths``, are added up and come as one. A chat model stays one, so that tools can be bound to it.

    Args:
        guard: The guard that moderates.
        runnable: A chat model, a chain, or any other runnable.
        paths: Where in a value prose is, as for ``Guard.moderate``.

    Raises:
        UsageError: For a path that is not written as one.
    """
    parse_paths(paths)

    def guarded(model: BaseChatModel) -> BaseChatModel:
        if isinstance(model, GuardedChatModel) and model.guarded_by(guard):
            return model
        return GuardedChatModel(model, guard=guard, paths=paths)

    return _with_models(runnable, guarded) or GuardedRunnable(runnable, guard=guard, paths=paths)


def _with_models(
    runnable: Runnable[Any, Any], guarded: Callable[[BaseChatModel], BaseChatModel], *, chains: bool = False
) -> Runnable[Any, Any] | None:
    """The runnable with its chat models guarded; None for one that is not made of chat models.

    It may be a model, one with arguments, configuration or retries bound, or one with fallbacks; with
    ``chains`` also a chain or a map that has one in it.
    """

    def inside(part: Runnable[Any, Any]) -> Runnable[Any, Any] | None:
        return _with_models(part, guarded, chains=chains)

    if isinstance(runnable, BaseChatModel):
        return guarded(runnable)
    if isinstance(runnable, RunnableBindingBase):
        bound = inside(runnable.bound)
        return None if bound is None else runnable.model_copy(update={"bound": bound})
    if isinstance(runnable, RunnableWithFallbacks):
        first, *others = (inside(part) for part in (runnable.runnable, *runnable.fallbacks))
        if first is None or None in others:
            return None
        return runnable.model_copy(update={"runnable": first, "fallbacks": others})
    if chains and isinstance(runnable, RunnableSequence):
        steps = [inside(step) for step in runnable.steps]
        if any(steps):
            return RunnableSequence(
                *(new or old for new, old in zip(steps, runnable.steps, strict=True)), name=runnable.name
            )
    if chains and isinstance(runnable, RunnableParallel):
        named = {name: inside(step) for name, step in runnable.steps__.items()}
        if any(named.values()):
            return RunnableParallel({name: new or runnable.steps__[name] for name, new in named.items()})
    return None


def _has_form(kwargs: Mapping[str, Any]) -> bool:
    """True if arguments ask for a call of a tool, or for an answer in a given format."""
    if kwargs.get("response_format") or kwargs.get("ls_structured_output_format"):
        return True
    return kwargs.get("tool_choice") not in (None, False, "auto", "none")


def is_signed(message: AIMessage) -> bool:
    """True if a guard released the message and nobody changed it since."""
    return message.response_metadata.get(SIGNATURE) == _signature(message)


def _signature(message: AIMessage) -> str:
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    return fingerprint(json.dumps([str(message.text), calls], default=repr, sort_keys=True))


def _signed(message: BaseMessage) -> BaseMessage:
    if not isinstance(message, AIMessage):
        return message
    metadata = {**message.response_metadata, SIGNATURE: _signature(message)}
    return message.model_copy(update={"response_metadata": metadata})


async def _signed_chunks(
    chunks: AsyncIterator[BaseMessageChunk],
) -> AsyncGenerator[ChatGenerationChunk, None]:
    """The chunks as a model gives them; the last one carries the signature of them all."""
    seen: list[BaseMessageChunk] = []
    last: BaseMessageChunk | None = None
    async for chunk in chunks:
        seen.append(chunk)
        if getattr(chunk, "chunk_position", None) == "last":
            last = chunk
        else:
            yield ChatGenerationChunk(message=chunk)
    if seen:
        last = blank(seen[-1]) if last is None else last
        whole = message_chunk_to_message(reduce(operator.add, seen))
        if isinstance(whole, AIMessage):
            last = last.model_copy(update={"response_metadata": {SIGNATURE: _signature(whole)}})
        yield ChatGenerationChunk(message=last)


async def _chunks(source: AsyncIterator[ChatGenerationChunk]) -> AsyncGenerator[BaseMessageChunk, None]:
    async for generated in source:
        yield cast("BaseMessageChunk", _message(generated))


def _message(generated: ChatGeneration) -> BaseMessage:
    """The message with all that the model told about it, as LangChain puts it together."""
    if not generated.generation_info:
        return generated.message
    metadata = {**generated.generation_info, **generated.message.response_metadata}
    return generated.message.model_copy(update={"response_metadata": metadata})


def _result(released: Sequence[BaseMessage], llm_output: dict[str, Any] | None) -> ChatResult:
    generations = [ChatGeneration(message=_signed(message)) for message in released]
    return ChatResult(generations=generations, llm_output=llm_output)


def _streams(model: BaseChatModel) -> bool:
    return type(model)._stream is not BaseChatModel._stream
