"""wrap: any runnable and any chat model, in every way of calling them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from operator import itemgetter
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel, RunnablePassthrough
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langsmith.run_helpers import tracing_context
from langsmith.utils import tracing_is_enabled
from pydantic import BaseModel

from guardrail import Action, Outcome, Policy
from guardrail.errors import BlockedError, ManifestError, UsageError
from guardrail.integrations.langchain import wrap
from tests.bus import BLOCK, CLEAN, MENDED, NEUTRAL, REFUSAL, TEXT, TOXIC, guard
from tests.integrations.langchain.models import Listener, Scripted, call, calls, generic, says

PROMPT = ChatPromptTemplate.from_messages([("user", "{question}")])
QUESTION = {"question": "How was the trip?"}
WAYS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "transform", "atransform"]


def chain(text: str = TEXT, *, times: int = 1) -> Runnable[dict[str, str], str]:
    return PROMPT | generic(*[text] * times) | StrOutputParser()


async def source(value: Any) -> AsyncIterator[Any]:
    yield value


async def gathered(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


def outputs(runnable: Runnable[Any, Any], way: str, value: Any) -> list[Any]:
    """What comes out of a runnable, called in one of WAYS."""
    if way in ("batch", "abatch"):
        called = getattr(runnable, way)([value])
    elif way in ("transform", "atransform"):
        called = getattr(runnable, way)(source(value) if way == "atransform" else iter([value]))
    else:
        called = getattr(runnable, way)(value)
    if way in ("astream", "atransform"):
        return asyncio.run(gathered(called))
    if way in ("ainvoke", "abatch"):
        return outputs_of(asyncio.run(called), way)
    return list(called) if way in ("stream", "transform") else outputs_of(called, way)


def outputs_of(result: Any, way: str) -> list[Any]:
    return list(result) if "batch" in way else [result]


async def awaited(value: Any) -> Any:
    return await value


@pytest.mark.parametrize("way", WAYS)
def test_a_chain_of_text_gives_what_check_gives(way: str) -> None:
    careful = guard()
    texts = outputs(wrap(careful, chain()), way, QUESTION)
    assert "".join(texts) == careful.check(TEXT).text == MENDED
    assert all(isinstance(text, str) for text in texts)


@pytest.mark.parametrize("way", WAYS)
def test_a_chat_model_gives_what_check_gives(way: str) -> None:
    careful = guard()
    messages = outputs(wrap(careful, generic(AIMessage(TEXT, id="m1"))), way, "hello")
    assert "".join(str(message.text) for message in messages) == careful.check(TEXT).text
    streamed = way in ("stream", "astream", "transform", "atransform")
    assert {type(message) for message in messages} == {AIMessageChunk if streamed else AIMessage}
    assert {message.id for message in messages} == {"m1"}


@pytest.mark.parametrize("way", WAYS)
def test_a_chain_of_messages_keeps_ids_calls_and_usage(way: str) -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    model = Scripted(script=[[says(TEXT, id="m1"), *calls("buses"), says(id="m1", usage_metadata=usage)]])
    wrapped = wrap(guard(), PROMPT | model)
    first, *rest = outputs(wrapped, way, QUESTION)
    message = message_chunk_to_message(sum(rest, first))
    assert isinstance(message, AIMessage)
    assert message.text == MENDED
    assert (message.id, message.tool_calls, message.usage_metadata) == ("m1", [call("buses")], usage)


def test_a_wrapped_chat_model_is_a_chat_model() -> None:
    model = wrap(guard(), generic(TEXT))
    assert isinstance(model, BaseChatModel)
    assert wrap(guard(), generic(TEXT).bind(stop=["x"])).invoke("hello").content == MENDED


def test_a_model_is_not_wrapped_twice_by_the_same_guard() -> None:
    careful = guard()
    model = wrap(careful, generic(TEXT))
    assert wrap(careful, model) is model


@tool
def search(query: str) -> str:
    """Finds something."""
    return f"found {query}"


def test_tools_can_be_bound_before_and_after_wrapping() -> None:
    script = [[*calls(TOXIC)]]
    for bound in (
        wrap(guard(), Scripted(script=script)).bind_tools([search]),
        wrap(guard(), Scripted(script=script).bind_tools([search])),
    ):
        message = bound.invoke("hello")
        assert message.content == REFUSAL
        assert message.tool_calls == []


def test_the_input_and_output_types_are_those_of_the_chain() -> None:
    plain = chain()
    wrapped = wrap(guard(), plain)
    assert wrapped.InputType == plain.InputType
    assert wrapped.OutputType is str
    assert wrapped.get_input_jsonschema() == plain.get_input_jsonschema()
    assert wrapped.get_output_jsonschema() == plain.get_output_jsonschema()
    assert wrapped.get_name() == plain.get_name()


def test_a_wrapped_chain_is_part_of_larger_chains() -> None:
    larger: Runnable[Any, str] = (
        RunnableLambda(lambda text: {"question": text}) | wrap(guard(), chain()) | str.upper
    )
    assert larger.invoke("hello") == MENDED.upper()


def test_many_inputs_each_get_their_own_outcome() -> None:
    heard: list[Outcome] = []
    echo = RunnableLambda(lambda text: text)
    texts = [CLEAN, TOXIC, "Fine."]
    assert wrap(guard(on_outcome=heard.append), echo).batch(texts) == [CLEAN, NEUTRAL, "Fine."]
    assert sorted(outcome.action for outcome in heard) == [Action.PASSED, Action.PASSED, Action.REWRITTEN]


def test_concurrent_calls_share_model_calls() -> None:
    shared = guard()
    texts = [f"Number {n} is a plain sentence." for n in range(16)]
    answered: list[str] = []
    all_answered = asyncio.Event()

    async def answer(text: str) -> str:
        answered.append(text)
        if len(answered) == len(texts):
            all_answered.set()
        await all_answered.wait()
        return text

    assert asyncio.run(wrap(shared, RunnableLambda(answer)).abatch(texts)) == texts
    detection = shared.statistics().queues["detector"]
    assert detection.texts >= len(texts) > detection.calls


def test_errors_of_the_chain_pass_through() -> None:
    def fails(text: str) -> str:
        raise LookupError("its own")

    wrapped = wrap(guard(), RunnableLambda(fails))
    with pytest.raises(LookupError, match="its own"):
        wrapped.invoke("x")
    with pytest.raises(LookupError, match="its own"):
        list(wrapped.stream("x"))
    results: list[Any] = wrapped.batch(["x"], return_exceptions=True)
    assert [type(result) for result in results] == [LookupError]


# What is not text


def test_an_undeclared_string_of_a_dict_stops_it() -> None:
    answering: Runnable[str, dict[str, str]] = RunnableLambda(lambda text: {"answer": text})
    with pytest.raises(BlockedError, match="paths="):
        wrap(guard(), answering).invoke(TOXIC)


@pytest.mark.parametrize("way", WAYS)
def test_a_declared_path_is_rewritten_whichever_way_it_comes(way: str) -> None:
    parsed = generic(f'{{"answer": "{TOXIC}", "score": 1}}') | JsonOutputParser()
    results = outputs(wrap(guard(), parsed, paths=["answer"]), way, "hello")
    assert results == [{"answer": NEUTRAL, "score": 1}]


def test_listed_arguments_of_calls_are_rewritten() -> None:
    model = Scripted(script=[calls(TOXIC)])
    wrapped = wrap(guard(), model, paths=["tool_calls[].args.query"])
    assert wrapped.invoke("hello").tool_calls == [call(NEUTRAL)]
    (message,) = wrapped.stream("hello")
    assert message.tool_calls == [call(NEUTRAL)]


def test_a_malformed_path_is_refused_when_wrapping() -> None:
    with pytest.raises(UsageError, match="malformed"):
        wrap(guard(), chain(), paths=["a..b"])


def test_a_structured_answer_of_a_model_is_read() -> None:
    class Answer(BaseModel):
        """An answer."""

        query: str

    script = [[AIMessageChunk(content="", tool_calls=[call("buses", name="Answer")])]]
    careful = wrap(guard(), Scripted(script=script))
    assert isinstance(careful, BaseChatModel)
    assert careful.with_structured_output(Answer).invoke("hello") == Answer(query="buses")


class Fact(BaseModel):
    """A fact."""

    query: str


class Provider(Scripted):
    """Makes structured answers as the models of providers do: by a tool, a schema or JSON mode."""

    def with_structured_output(
        self, schema: Any, *, include_raw: bool = False, method: str = "json_schema", **kwargs: Any
    ) -> Runnable[Any, Any]:
        if method == "function_calling":
            return super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        model = self.bind(response_format={"type": method}, ls_structured_output_format={"schema": schema})
        parser = PydanticOutputParser(pydantic_object=schema)
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(
            parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
        ).with_fallbacks([RunnablePassthrough.assign(parsed=lambda _: None)], exception_key="parsing_error")
        return RunnableParallel(raw=model) | parsed

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        seen.append(kwargs)
        return super()._generate(messages, stop, run_manager, **kwargs)


seen: list[dict[str, Any]] = []
METHODS = ["function_calling", "json_schema", "json_mode"]


def provider(method: str, query: str) -> Provider:
    if method == "function_calling":
        return Provider(script=[[AIMessageChunk(content="", tool_calls=[call(query, name="Fact")])]])
    return Provider(script=[[says(f'{{"query": "{query}"}}')]])


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_structured_answer_is_made_by_the_method_of_the_bare_model(method: str, include_raw: bool) -> None:
    def asked(model: BaseChatModel) -> tuple[Any, dict[str, Any]]:
        seen.clear()
        structured = model.with_structured_output(Fact, method=method, include_raw=include_raw)
        result: Any = structured.invoke("hello")
        assert asyncio.run(awaited(structured.ainvoke("hello"))) is not None
        return (result["parsed"] if include_raw else result), seen[0]

    bare = asked(provider(method, "buses"))
    assert asked(wrap(guard(), provider(method, "buses"))) == bare
    assert bare[0] == Fact(query="buses")


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
def test_a_flagged_structured_answer_raises_whatever_the_method(
    way: str, method: str, include_raw: bool
) -> None:
    careful = wrap(guard(), provider(method, TOXIC))
    structured = careful.with_structured_output(Fact, method=method, include_raw=include_raw)
    with pytest.raises(BlockedError):
        outputs(structured, way, "hello")


def test_a_structured_answer_without_a_model_in_sight_is_moderated_as_a_value() -> None:
    class Closed(Scripted):
        def with_structured_output(self, schema: Any, **kwargs: Any) -> Runnable[Any, Any]:
            return RunnableLambda(lambda _: Fact(query=self._next()[0].text))

    assert wrap(guard(), Closed(script=[[says("buses")]])).with_structured_output(Fact).invoke("hello")
    with pytest.raises(BlockedError):
        wrap(guard(), Closed(script=[[says(TOXIC)]])).with_structured_output(Fact).invoke("hello")


@pytest.mark.parametrize(
    "made",
    [
        lambda model: model.bind(stop=["x"]),
        lambda model: model.bind_tools([search]),
        lambda model: model.with_config(tags=["t"]),
        lambda model: model.with_retry(stop_after_attempt=2),
        lambda model: model.with_fallbacks([generic(TEXT)]),
        lambda model: model.bind_tools([search]).with_retry().with_config(tags=["t"]).bind(stop=["x"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch"])
def test_what_is_made_of_a_model_is_moderated_before_and_after_wrapping(made: Any, way: str) -> None:
    for runnable in (
        made(wrap(guard(), Scripted(script=[[says(TEXT)]]))),
        wrap(guard(), made(Scripted(script=[[says(TEXT)]]))),
    ):
        assert "".join(str(message.text) for message in outputs(runnable, way, "hello")) == MENDED


def test_tools_can_be_bound_to_a_wrapped_model_with_fallbacks() -> None:
    failing = Scripted(script=[[says(TEXT)]], fails=True)
    both = failing.with_fallbacks([Scripted(script=[[says(TEXT)]])])
    careful: Any = wrap(guard(), both)
    assert careful.bind_tools([search]).invoke("hello").content == MENDED


def test_a_retry_of_a_wrapped_model_asks_the_bare_one_again() -> None:
    model = Scripted(script=[[says(TEXT)]], fails=True)
    with pytest.raises(ConnectionError):
        wrap(guard(), model).with_retry(stop_after_attempt=3, wait_exponential_jitter=False).invoke("hello")
    assert model.turn == 3


def test_a_wrapped_model_counts_tokens_as_the_bare_one() -> None:
    class Counting(Scripted):
        def get_token_ids(self, text: str) -> list[int]:
            return [ord(letter) for letter in text]

    careful = wrap(guard(), Counting(script=[[says(TEXT)]]))
    assert careful.get_num_tokens("abc") == 3
    assert careful.get_num_tokens_from_messages([AIMessage("abc")]) > 3


@pytest.mark.parametrize("choice", ["any", "search", {"type": "function"}])
def test_a_forced_call_that_is_flagged_raises(choice: Any) -> None:
    class Forced(Scripted):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
            return self.bind(tools=["search"], **kwargs)

    careful = wrap(guard(), Forced(script=[calls(TOXIC)]))
    with pytest.raises(BlockedError):
        careful.bind_tools([search], tool_choice=choice).invoke("hello")
    refused: Any = careful.bind_tools([search], tool_choice="auto").invoke("hello")
    assert refused.content == REFUSAL


def test_a_graph_is_moderated_as_a_whole_and_refuses_to_stream() -> None:
    def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(TEXT, id="m1")]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    wrapped: Runnable[Any, Any] = wrap(guard(), builder.compile())
    assert wrapped.invoke({"messages": [("user", "hello")]})["messages"][-1].content == MENDED
    with pytest.raises(UsageError, match="DetoxMiddleware"):
        next(wrapped.stream({"messages": []}))


# Callbacks and traces


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["chain of text", "chain of messages", "model"])
def test_callbacks_hear_of_moderated_text_only(way: str, kind: str) -> None:
    listener = Listener()
    model = generic(TEXT)
    runnable: Runnable[Any, Any] = model if kind == "model" else PROMPT | model
    plain = runnable | StrOutputParser() if kind == "chain of text" else runnable
    wrapped = wrap(guard(), plain).with_config(callbacks=[listener])
    outputs(wrapped, way, "hello" if kind == "model" else QUESTION)
    told = " ".join(listener.heard)
    assert "idiot" not in told
    assert "person" in told


def test_events_carry_moderated_text_only() -> None:
    async def events(runnable: Runnable[Any, Any], value: Any) -> list[Any]:
        return [event async for event in runnable.astream_events(value, version="v2")]

    for runnable, value in ((wrap(guard(), chain()), QUESTION), (wrap(guard(), generic(TEXT)), "hello")):
        told = repr(asyncio.run(events(runnable, value)))
        assert "idiot" not in told
        assert "person" in told


def test_a_cache_holds_released_text_and_is_read_again() -> None:
    cache = InMemoryCache()
    plain = Scripted(script=[[says(TEXT)]], cache=cache)
    careful = wrap(guard(), plain)
    assert [careful.invoke("hello").content for _ in range(2)] == [MENDED] * 2
    assert plain.turn == 1
    assert "idiot" not in repr(cache._cache)


def test_usage_is_counted_once() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    chunk = says(TEXT, usage_metadata=usage, response_metadata={"model_name": "m"})
    with get_usage_metadata_callback() as counted:
        wrap(guard(), Scripted(script=[[chunk]])).invoke("hello")
    assert counted.usage_metadata["m"]["total_tokens"] == 3


def test_nothing_is_traced_inside_a_wrapped_chain() -> None:
    seen: list[bool] = []

    def answer(text: str) -> str:
        seen.append(tracing_is_enabled() is not False)
        return text

    with tracing_context(enabled="local"):
        wrapped = wrap(guard(), RunnableLambda(answer))
        wrapped.invoke(TOXIC)
        list(wrapped.stream(TOXIC))
        asyncio.run(awaited(wrapped.ainvoke(TOXIC)))
        assert tracing_is_enabled() == "local"  # outside all is as before
    assert seen == [False] * 3


def test_a_model_that_breaks_does_not_tell_callbacks_what_was_not_released() -> None:
    listener = Listener()
    model = wrap(guard(), Scripted(script=[[says(TEXT, " The idiot of")]], fails=True))
    shown: list[str] = []
    with pytest.raises(ConnectionError):
        shown.extend(chunk.text for chunk in model.stream("hello", config={"callbacks": [listener]}))
    assert "".join(shown) == MENDED
    assert "idiot" not in " ".join(listener.heard)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", ["raise", "broken"])
@pytest.mark.parametrize("kind", ["chain", "model", "messages"])
def test_no_frame_of_an_error_holds_text(way: str, policy: str, kind: str) -> None:
    def altered(texts: Any) -> Any:
        raise ManifestError("model.onnx was altered")

    canary = "canaryword7419"
    text = f"All about {canary} and buses. {TOXIC}"
    raising = guard(Policy(ladder=("block",), block="raise"))
    careful = raising if policy == "raise" else guard(detector=altered)
    runnable: Runnable[Any, Any] = generic(text)
    if kind != "model":
        runnable = PROMPT | generic(text)
    plain = runnable | StrOutputParser() if kind == "chain" else runnable
    with pytest.raises((BlockedError, ManifestError)) as caught:
        outputs(wrap(careful, plain), way, "hello" if kind == "model" else QUESTION)
    trace = caught.value.__traceback__
    while trace is not None:
        if "/guardrail/" in trace.tb_frame.f_code.co_filename:
            assert canary not in repr(trace.tb_frame.f_locals)
        trace = trace.tb_next
    assert canary not in str(caught.value)


# The policy


def test_block_raise_raises_in_every_way() -> None:
    careful = guard(Policy(ladder=("block",), block="raise"))
    for way in WAYS:
        with pytest.raises(BlockedError):
            outputs(wrap(careful, chain()), way, QUESTION)
        with pytest.raises(BlockedError):
            outputs(wrap(careful, generic(TEXT)), way, "hello")


def test_block_whole_refuses_streams_of_text_and_makes_models_answer_whole() -> None:
    whole = guard(Policy(ladder=("block",), block="whole"))
    with pytest.raises(UsageError, match="whole"):
        list(wrap(whole, chain()).stream(QUESTION))
    (message,) = wrap(whole, generic(TEXT)).stream("hello")
    assert message.content == REFUSAL


def test_what_check_blocks_is_blocked_in_every_way() -> None:
    expected = guard(BLOCK).check(TEXT).text
    for way in WAYS:
        assert "".join(outputs(wrap(guard(BLOCK), chain()), way, QUESTION)) == expected


def test_the_hook_hears_each_answer_once() -> None:
    for way in WAYS:
        heard: list[Outcome] = []
        outputs(wrap(guard(on_outcome=heard.append), chain()), way, QUESTION)
        assert [outcome.action for outcome in heard] == [Action.REWRITTEN]


def test_a_missing_extra_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    from guardrail.errors import MissingExtraError

    for name in [name for name in sys.modules if name.startswith("guardrail.integrations.langchain")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware", None)
    with pytest.raises(MissingExtraError, match=r"detox-guardrail\[langchain\]"):
        importlib.import_module("guardrail.integrations.langchain")
