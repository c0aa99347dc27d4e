"""OpenAI Agents SDK: real runs with its scripted model, and with its model for a chat server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("agents", reason="pip install openai-agents")

from agents import (
    Agent,
    ModelRefusalError,
    ModelSettings,
    ModelTracing,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    OutputGuardrailTripwireTriggered,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from openai import AsyncOpenAI
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from guardrail import BlockedError, Policy, UsageError
from guardrail.integrations.openai_agents import GuardedModel, output_guardrail
from tests.integrations.responses import recorded
from tests.integrations.server.running import Upstream, completion, delta, events
from tests.integrations.streamed import answer_with
from tests.streaming import CLEAN, NEUTRAL, TOXIC, guard

set_tracing_disabled(True)
RAISING = Policy(ladder=("block",), block="raise")


class Report(BaseModel):
    summary: str


def said_by(model: Any, **options: Any) -> Any:
    """The final output of a run."""
    return asyncio.run(Runner.run(Agent("helper", model=model, **options), "Hello")).final_output


def streamed_by(model: Any, **options: Any) -> tuple[str, Any]:
    """The text of the deltas of a streamed run, and its final output."""

    async def run() -> tuple[str, Any]:
        result = Runner.run_streamed(Agent("helper", model=model, **options), "Hello")
        pieces = [
            event.data.delta
            async for event in result.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        return "".join(pieces), result.final_output

    return asyncio.run(run())


def scripted(*outputs: Any, policy: Policy | None = None) -> GuardedModel:
    steps = [[assistant_message(output)] if isinstance(output, str) else output for output in outputs]
    return GuardedModel(ScriptedModel(steps), guard=guard(policy or Policy()))


def test_a_clean_answer_is_the_same_object() -> None:
    answer = assistant_message(CLEAN)
    model = GuardedModel(ScriptedModel([[answer]]), guard=guard())
    run = asyncio.run(Runner.run(Agent("helper", model=model), "Hello"))
    assert run.raw_responses[0].output == [answer]
    assert run.final_output == CLEAN


def test_a_toxic_answer_is_rewritten() -> None:
    assert said_by(scripted(f"{CLEAN} {TOXIC}")) == f"{CLEAN} {NEUTRAL}"


def test_a_stream_is_rewritten_inside_and_its_end_says_the_same() -> None:
    said, final = streamed_by(scripted(f"{CLEAN} {TOXIC}"))
    assert said == final == f"{CLEAN} {NEUTRAL}"


@pytest.mark.parametrize("streamed", [False, True])
def test_every_recorded_stream_reaches_the_agent_as_its_whole_does(
    upstream: Upstream, streamed: bool
) -> None:
    answer = recorded.RECORDED["reasoning text"]
    answer_with(upstream, answer, recorded.stream(answer))

    async def run() -> Any:
        async with AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as client:
            agent = Agent("helper", model=GuardedModel(OpenAIResponsesModel("m", client), guard=guard()))
            if not streamed:
                return await Runner.run(agent, "Hello")
            result = Runner.run_streamed(agent, "Hello")
            async for event in result.stream_events():
                assert "idiot" not in repr(getattr(event, "data", ""))
            return result

    result = asyncio.run(run())
    assert result.final_output == recorded.SENTENCES.replace("idiot", "person")
    assert "idiot" not in repr(result.new_items)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_model_behind_chat_completions_is_moderated_too(upstream: Upstream, streamed: bool) -> None:
    words = [delta(f"{word} ") for word in f"{CLEAN} {TOXIC}".split(" ")]
    upstream.reply = lambda asked: (
        events([*words, delta(reason="stop"), "[DONE]"])
        if asked.body.get("stream")
        else completion([f"{CLEAN} {TOXIC} "])
    )

    async def run() -> str:
        async with AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as client:
            inner = OpenAIChatCompletionsModel("m", client)
            agent = Agent("helper", model=GuardedModel(inner, guard=guard()))
            if not streamed:
                return str((await Runner.run(agent, "Hello")).final_output)
            result = Runner.run_streamed(agent, "Hello")
            async for _ in result.stream_events():
                pass
            return str(result.final_output)

    assert asyncio.run(run()).strip() == f"{CLEAN} {NEUTRAL}"


@pytest.mark.parametrize("run", [said_by, lambda model, **options: streamed_by(model, **options)[1]])
def test_a_clean_call_reaches_its_tool_as_it_was(run: Any) -> None:
    called: list[str] = []

    @function_tool
    def send(text: str) -> str:
        """Sends a text."""
        called.append(text)
        return "Sent."

    call = [function_call("send", {"text": CLEAN}, call_id="call_1")]
    assert run(scripted(call, TOXIC), tools=[send]) == NEUTRAL
    assert called == [CLEAN]


@pytest.mark.parametrize("run", [said_by, lambda model, **options: streamed_by(model, **options)[1]])
def test_a_toxic_call_never_reaches_its_tool(run: Any) -> None:
    called: list[str] = []

    @function_tool
    def send(text: str) -> str:
        """Sends a text."""
        called.append(text)
        return "Sent."

    call = [function_call("send", {"text": TOXIC}, call_id="call_1")]
    with pytest.raises(BlockedError):
        run(scripted(call, policy=RAISING), tools=[send])
    with pytest.raises(ModelRefusalError):
        run(scripted(call), tools=[send])
    assert called == []


@pytest.mark.parametrize("run", [said_by, lambda model, **options: streamed_by(model, **options)[1]])
def test_structured_output_still_parses_and_is_refused_where_it_is_toxic(run: Any) -> None:
    clean, toxic = (json.dumps({"summary": text}) for text in (CLEAN, TOXIC))
    assert run(scripted(clean), output_type=Report) == Report(summary=CLEAN)
    with pytest.raises(ModelRefusalError):
        run(scripted(toxic), output_type=Report)


def asked(*, tracing: ModelTracing = ModelTracing.DISABLED) -> dict[str, Any]:
    """What the SDK asks of a model."""
    names = {"previous_response_id": None, "conversation_id": None, "prompt": None}
    return names | {
        "system_instructions": None,
        "input": "Hello",
        "model_settings": ModelSettings(),
        "tools": [],
        "output_schema": None,
        "handoffs": [],
        "tracing": tracing,
    }


def test_an_error_inside_a_stream_comes_behind_what_is_clean() -> None:
    shown = recorded.stream(recorded.RECORDED["text"])[:8]
    reading = TypeAdapter(ResponseStreamEvent)

    async def broken(call: Any) -> Any:
        for event in shown:
            yield reading.validate_python(event)
        raise ConnectionError("gone")

    model = GuardedModel(ScriptedModel([ModelStep.stream(broken)]), guard=guard())
    seen: list[Any] = []

    async def run() -> None:
        async for event in model.stream_response(**asked()):
            seen.append(event)

    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(run())
    said = "".join(event.delta for event in seen if event.type == "response.output_text.delta")
    given = "".join(event["delta"] for event in shown if event["type"] == "response.output_text.delta")
    assert said == given != ""


def test_a_policy_that_no_stream_can_keep_is_refused() -> None:
    with pytest.raises(UsageError, match="block='whole'"):
        streamed_by(scripted(CLEAN, policy=Policy(block="whole")))


def test_the_model_inside_is_told_to_trace_no_text() -> None:
    inner = ScriptedModel([[assistant_message(CLEAN)]])
    model = GuardedModel(inner, guard=guard())

    asyncio.run(model.get_response(**asked(tracing=ModelTracing.ENABLED)))
    assert inner.calls[0].tracing is ModelTracing.ENABLED_WITHOUT_DATA


@pytest.mark.parametrize("policy", [Policy(), RAISING])
def test_the_output_guardrail_trips_and_changes_nothing(policy: Policy) -> None:
    def agent(text: str, **options: Any) -> Agent[Any]:
        model = ScriptedModel([[assistant_message(text)]])
        return Agent("helper", model=model, output_guardrails=[output_guardrail(guard(policy))], **options)

    assert asyncio.run(Runner.run(agent(CLEAN), "Hello")).final_output == CLEAN
    outputs: Sequence[tuple[str, Any]] = [(TOXIC, str), (json.dumps({"summary": TOXIC}), Report)]
    for text, kind in outputs:
        with pytest.raises(OutputGuardrailTripwireTriggered) as tripped:
            asyncio.run(Runner.run(agent(text, output_type=kind), "Hello"))
        assert "idiot" not in repr(tripped.value.guardrail_result.output.output_info)
