"""DetoxMiddleware in real agents: state, tools, every stream mode."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from guardrail import Action, Outcome, Policy
from guardrail.errors import BlockedError
from guardrail.integrations.langchain import DetoxMiddleware, wrap
from tests.bus import BLOCK, CLEAN, MENDED, NEUTRAL, REFUSAL, TEXT, TOXIC, guard
from tests.integrations.langchain.models import Listener, Scripted, call, calls, generic, says

ASK: Any = {"messages": [HumanMessage("How was the trip?", id="h1")]}
MODES = ["values", "updates", "messages", "custom", "checkpoints", "tasks", "debug"]
searched: list[str] = []


@tool
def search(query: str) -> str:
    """Finds something."""
    searched.append(query)
    return f"found {query}"


@pytest.fixture(autouse=True)
def nothing_searched() -> Iterator[None]:
    searched.clear()
    yield
    searched.clear()


def agent(*script: Sequence[AIMessageChunk], middleware: Sequence[Any] = (), **settings: Any) -> Any:
    """An agent with the tool ``search`` whose model says the script."""
    model = Scripted(script=[list(chunks) for chunks in script])
    return create_agent(model, tools=[search], middleware=[*middleware], **settings)


def last(state: dict[str, Any]) -> AIMessage:
    message = state["messages"][-1]
    assert isinstance(message, AIMessage)
    return message


def test_the_answer_in_the_state_is_moderated_once() -> None:
    heard: list[Outcome] = []
    careful = guard(on_outcome=heard.append)
    state = agent([says(TEXT)], middleware=[DetoxMiddleware(careful)]).invoke(ASK)
    assert last(state).content == MENDED
    assert [outcome.action for outcome in heard] == [Action.REWRITTEN]
    assert len(state["messages"]) == 2


def test_an_asynchronous_agent_is_moderated_too() -> None:
    runs = agent([says(TEXT)], middleware=[DetoxMiddleware(guard())]).ainvoke(ASK)
    assert last(asyncio.run(runs)).content == MENDED


def test_a_clean_call_reaches_its_tool_and_the_loop_goes_on() -> None:
    state = agent(calls("buses"), [says(TEXT)], middleware=[DetoxMiddleware(guard())]).invoke(ASK)
    assert searched == ["buses"]
    assert [type(message) for message in state["messages"]] == [
        HumanMessage,
        AIMessage,
        ToolMessage,
        AIMessage,
    ]
    assert state["messages"][1].tool_calls == [call("buses")]
    assert last(state).content == MENDED


def test_a_flagged_call_reaches_no_tool_and_the_agent_ends_with_the_refusal() -> None:
    state = agent(calls(TOXIC), [says(CLEAN)], middleware=[DetoxMiddleware(guard())]).invoke(ASK)
    assert searched == []
    assert last(state).content == REFUSAL


def test_a_listed_argument_reaches_its_tool_rewritten() -> None:
    detox = DetoxMiddleware(guard(), paths=["tool_calls[].args.query"])
    agent([*calls(TOXIC)], [says(CLEAN)], middleware=[detox]).invoke(ASK)
    assert searched == [NEUTRAL]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_no_stream_mode_shows_what_was_not_released(mode: str, asynchronous: bool) -> None:
    graph = agent(
        [says(TOXIC), *calls("buses")],
        [says("The id"), says("iot said: "), says(TEXT)],
        middleware=[DetoxMiddleware(guard())],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "1"}}

    async def gather() -> list[Any]:
        return [event async for event in graph.astream(ASK, config, stream_mode=mode)]

    events = asyncio.run(gather()) if asynchronous else list(graph.stream(ASK, config, stream_mode=mode))
    assert "idiot" not in repr(events)
    if mode != "custom":
        assert "person" in repr(events)
    if mode == "messages":
        said = "".join(str(chunk.text) for chunk, _ in events if isinstance(chunk, AIMessageChunk))
        assert "idiot" not in said
        assert len([chunk for chunk, _ in events if chunk.text]) > 3  # it is a stream, not one piece


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_events_show_only_what_was_released(version: Any) -> None:
    graph = agent([says(TOXIC), *calls("buses")], [says(TEXT)], middleware=[DetoxMiddleware(guard())])

    async def gather() -> list[Any]:
        events = graph.astream_events(ASK, version=version)
        return [event async for event in (await events if version == "v3" else events)]

    told = repr(asyncio.run(gather()))
    assert "idiot" not in told
    assert "person" in told


@pytest.mark.filterwarnings("ignore:The v3 streaming protocol")
def test_the_typed_stream_of_an_agent_shows_only_what_was_released() -> None:
    heard: list[Outcome] = []
    graph = agent([says(TEXT)], middleware=[DetoxMiddleware(guard(on_outcome=heard.append))])
    run = graph.stream_events(ASK, version="v3")
    texts = ["".join(message.text) for message in run.messages]
    assert texts == [MENDED]
    assert last(run.output).text == MENDED
    assert [outcome.action for outcome in heard] == [Action.REWRITTEN]


def test_callbacks_of_an_agent_hear_of_released_text_only() -> None:
    listener = Listener()
    graph = agent([says(TOXIC), *calls("buses")], [says(TEXT)], middleware=[DetoxMiddleware(guard())])
    graph.invoke(ASK, config={"callbacks": [listener]})
    assert "idiot" not in " ".join(listener.heard)
    assert "person" in " ".join(listener.heard)


class Replacing(AgentMiddleware[Any, Any, Any]):
    """Puts another message, or another model, in the place of the model's."""

    def __init__(self, model: Any = None, message: AIMessage | None = None) -> None:
        super().__init__()
        self._model = model
        self._message = message

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        if self._message is not None:
            return ModelResponse(result=[self._message])
        return handler(request.override(model=self._model))


@pytest.mark.parametrize("detox_is_last", [True, False])
def test_what_another_middleware_says_is_moderated(detox_is_last: bool) -> None:
    other = Replacing(message=AIMessage(TOXIC, id="a1"))
    middleware = [other, DetoxMiddleware(guard())] if detox_is_last else [DetoxMiddleware(guard()), other]
    state = agent([says(CLEAN)], middleware=middleware).invoke(ASK)
    assert last(state).content == NEUTRAL
    assert last(state).id == "a1"
    assert len(state["messages"]) == 2


def test_the_model_that_another_middleware_chose_is_wrapped_when_detox_is_last() -> None:
    middleware = [Replacing(model=generic(TEXT)), DetoxMiddleware(guard())]
    graph = create_agent(generic(CLEAN), middleware=middleware)
    assert "idiot" not in repr(list(graph.stream(ASK, stream_mode=["messages", "updates", "values"])))


def test_a_call_that_another_middleware_made_up_is_dropped_when_flagged() -> None:
    other = Replacing(message=AIMessage("", id="a1", tool_calls=[call(TOXIC)]))
    state = agent([says(CLEAN)], middleware=[DetoxMiddleware(guard()), other]).invoke(ASK)
    assert searched == []
    assert last(state).content == REFUSAL


def test_a_wrapped_model_needs_no_middleware() -> None:
    graph = create_agent(wrap(guard(), Scripted(script=[calls(TOXIC)])), tools=[search])
    assert last(graph.invoke(ASK)).content == REFUSAL
    assert searched == []


def test_a_model_that_is_wrapped_already_is_moderated_once() -> None:
    heard: list[Outcome] = []
    careful = guard(on_outcome=heard.append)
    graph = create_agent(wrap(careful, generic(TEXT)), middleware=[DetoxMiddleware(careful)])
    graph.invoke(ASK)
    assert len(heard) == 1


class Report(BaseModel):
    """A report."""

    summary: str
    score: int


@pytest.mark.parametrize(("summary", "paths"), [(CLEAN, []), (TOXIC, ["tool_calls[].args.summary"])])
def test_structured_answers_come_through(summary: str, paths: list[str]) -> None:
    report = tool_call(name="Report", args={"summary": summary, "score": 3}, id="c1")
    chunk = AIMessageChunk(content="", tool_calls=[report])
    graph = agent(
        [chunk], middleware=[DetoxMiddleware(guard(), paths=paths)], response_format=ToolStrategy(Report)
    )
    assert graph.invoke(ASK)["structured_response"] == Report(
        summary=CLEAN if summary == CLEAN else NEUTRAL, score=3
    )


def report(summary: str) -> AIMessageChunk:
    return AIMessageChunk(content="", tool_calls=[tool_call(name="Report", args=reported(summary), id="c1")])


def reported(summary: str) -> dict[str, Any]:
    return {"summary": summary, "score": 3}


STRUCTURED = {
    "tool": (ToolStrategy(Report), report(TOXIC)),
    "provider": (ProviderStrategy(Report), says(json.dumps(reported(TOXIC)))),
    "type": (Report, report(TOXIC)),
    "prose beside it": (ToolStrategy(Report), says(TOXIC, tool_calls=report(CLEAN).tool_calls)),
    "prose in its place": (ToolStrategy(Report), says(TOXIC)),
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("case", STRUCTURED)
def test_a_blocked_structured_answer_ends_the_agent_in_one_model_call(
    case: str, asynchronous: bool, wrapped: bool
) -> None:
    form, chunk = STRUCTURED[case]
    careful = guard(BLOCK)
    model = Scripted(script=[[chunk]])
    graph = create_agent(
        wrap(careful, model) if wrapped else model,
        tools=[search] if case == "tool" else [],
        middleware=[DetoxMiddleware(careful)],
        response_format=form,
    )
    with pytest.raises(BlockedError):
        asyncio.run(graph.ainvoke(ASK)) if asynchronous else graph.invoke(ASK)
    assert model.turn == 1


@pytest.mark.parametrize("case", ["tool", "provider", "type"])
def test_a_wrapped_model_without_middleware_ends_such_an_agent_too(case: str) -> None:
    form, chunk = STRUCTURED[case]
    model = Scripted(script=[[chunk]])
    with pytest.raises(BlockedError):
        create_agent(wrap(guard(), model), response_format=form).invoke(ASK)
    assert model.turn == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_of_such_an_agent_shows_nothing_of_it(mode: str) -> None:
    model = Scripted(script=[[report(TOXIC)]])
    graph = create_agent(model, middleware=[DetoxMiddleware(guard())], response_format=ToolStrategy(Report))
    shown: list[Any] = []
    with pytest.raises(BlockedError):
        shown += graph.stream(ASK, stream_mode=mode)
    assert "idiot" not in repr(shown)
    assert model.turn == 1


def test_a_structured_answer_that_another_middleware_made_up_ends_the_agent() -> None:
    model = Scripted(script=[[report(CLEAN)]])
    other = Replacing(message=AIMessage("", id="a1", tool_calls=report(TOXIC).tool_calls))
    middleware = [other, DetoxMiddleware(guard())]
    graph = create_agent(model, middleware=middleware, response_format=ToolStrategy(Report))
    state = graph.invoke(ASK)
    assert last(state).content == REFUSAL
    assert state["structured_response"] is None


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_agent_whose_model_answers_in_words_instead_of_a_call_ends(asynchronous: bool) -> None:
    model = Scripted(script=[[says(CLEAN)]] * 9)
    graph = create_agent(model, middleware=[DetoxMiddleware(guard())], response_format=ToolStrategy(Report))
    state = asyncio.run(graph.ainvoke(ASK)) if asynchronous else graph.invoke(ASK)
    assert last(state).content == CLEAN
    assert state.get("structured_response") is None
    assert model.turn == 3


def test_a_model_that_calls_after_an_answer_in_words_is_heard() -> None:
    model = Scripted(script=[[says(CLEAN)], [report(CLEAN)]])
    graph = create_agent(model, middleware=[DetoxMiddleware(guard())], response_format=ToolStrategy(Report))
    assert graph.invoke(ASK)["structured_response"] == Report(summary=CLEAN, score=3)


def test_an_agent_with_a_rewritten_message_and_a_clean_answer_goes_on() -> None:
    model = Scripted(script=[[says(TOXIC, tool_calls=report(CLEAN).tool_calls)]])
    graph = create_agent(model, middleware=[DetoxMiddleware(guard())], response_format=ToolStrategy(Report))
    assert graph.invoke(ASK)["structured_response"] == Report(summary=CLEAN, score=3)


def test_block_and_raise_hold_in_agents() -> None:
    state = agent([says(TEXT)], middleware=[DetoxMiddleware(guard(BLOCK))]).invoke(ASK)
    assert last(state).content == f"{CLEAN} {REFUSAL}"
    raising = DetoxMiddleware(guard(Policy(ladder=("block",), block="raise")))
    with pytest.raises(BlockedError):
        agent([says(TEXT)], middleware=[raising]).invoke(ASK)


def test_errors_of_the_model_pass_through() -> None:
    graph = create_agent(Scripted(script=[[says(TEXT)]], fails=True), middleware=[DetoxMiddleware(guard())])
    with pytest.raises(ConnectionError):
        list(graph.stream(ASK, stream_mode="messages"))


def test_what_a_wrapped_tool_returns_is_moderated_wherever_it_shows() -> None:
    @tool
    @guard().wrap
    def shout(query: str) -> str:
        """Repeats it."""
        return f"{TOXIC}"

    script = [[AIMessageChunk(content="", tool_calls=[call("buses", name="shout")])], [says(CLEAN)]]
    graph = create_agent(Scripted(script=script), tools=[shout], middleware=[DetoxMiddleware(guard())])
    events = list(graph.stream(ASK, stream_mode=["values", "messages", "tasks"]))
    assert "idiot" not in repr(events)
    assert NEUTRAL in repr(events)


def test_interleaved_agents_do_not_mix() -> None:
    shared = DetoxMiddleware(guard())

    async def one(number: int) -> str:
        graph = create_agent(generic(f"Number {number} is here for the trip. {TOXIC}"), middleware=[shared])
        return str(last(await graph.ainvoke(ASK)).text)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(10)))

    assert asyncio.run(all_of_them()) == [
        f"Number {number} is here for the trip. {NEUTRAL}" for number in range(10)
    ]
