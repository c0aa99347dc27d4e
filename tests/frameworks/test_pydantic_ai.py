"""Pydantic AI: real agents on its function model, and on its model for a chat server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

pytest.importorskip("pydantic_ai", reason="pip install pydantic-ai-slim")

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models.function import DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider

from guardrail import BlockedError, Policy, UsageError
from guardrail.integrations.pydantic_ai import GuardedModel
from tests.integrations.server.running import Upstream, completion, delta, events
from tests.streaming import CLEAN, NEUTRAL, TOXIC, cut, guard

RAISING = Policy(ladder=("block",), block="raise")
BLOCKING = Policy(ladder=("block",))


class Report(BaseModel):
    summary: str


def saying(*parts: Any, policy: Policy | None = None) -> GuardedModel:
    """A guarded model that gives these parts at its first turn, and "Done." at all others."""

    def answer(asked: Sequence[Any], info: Any) -> ModelResponse:
        given = parts if len(asked) == 1 else ("Done.",)
        return ModelResponse(parts=[TextPart(part) if isinstance(part, str) else part for part in given])

    return GuardedModel(FunctionModel(answer), guard=guard(policy or Policy()))


def streaming(chunks: Sequence[Any], policy: Policy | None = None) -> GuardedModel:
    """A guarded model that streams these chunks at its first turn, and "Done." at all others."""

    async def stream(asked: Sequence[Any], info: Any) -> AsyncIterator[Any]:
        for chunk in chunks if len(asked) == 1 else ("Done.",):
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    return GuardedModel(FunctionModel(stream_function=stream), guard=guard(policy or Policy()))


def streamed(model: Any, **options: Any) -> list[str]:
    """The pieces of text that a streamed run shows."""

    async def run() -> list[str]:
        async with Agent(model, **options).run_stream("Hello") as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    return asyncio.run(run())


def test_a_clean_answer_keeps_its_parts() -> None:
    part = TextPart(CLEAN, id="item-1", provider_name="p")
    result = Agent(saying(part)).run_sync("Hello")
    assert result.output == CLEAN
    assert result.new_messages()[-1].parts == [part]


def test_a_toxic_answer_is_rewritten_and_loses_the_id_under_which_the_provider_keeps_it() -> None:
    part = TextPart(f"{CLEAN} {TOXIC}", id="item-1", provider_name="p", provider_details={"logprobs": [1]})
    result = Agent(saying(part)).run_sync("Hello")
    assert result.output == f"{CLEAN} {NEUTRAL}"
    assert result.new_messages()[-1].parts == [TextPart(f"{CLEAN} {NEUTRAL}")]


def test_thinking_is_rewritten_without_its_signature_and_kept_with_it_where_it_is_clean() -> None:
    toxic = ThinkingPart(TOXIC, signature="s1", provider_name="p")
    empty = ThinkingPart("", signature="s2", provider_name="p")
    result = Agent(saying(toxic, empty, CLEAN)).run_sync("Hello")
    assert result.new_messages()[-1].parts == [ThinkingPart(NEUTRAL), empty, TextPart(CLEAN)]


@settings(max_examples=40)
@given(st.lists(st.integers(0, len(f"{CLEAN} {TOXIC}"))))
def test_for_every_cut_the_stream_says_what_the_whole_does(places: list[int]) -> None:
    pieces = streamed(streaming(cut(f"{CLEAN} {TOXIC}", places)))
    assert "".join(pieces) == f"{CLEAN} {NEUTRAL}"


def test_nothing_leaves_before_its_verdict_and_a_sentence_leaves_before_the_next_is_over() -> None:
    shown: list[str] = []

    async def stream(asked: Any, info: Any) -> AsyncIterator[str]:
        yield f"{CLEAN} The driver of that bus is an idi"
        await asyncio.sleep(0)
        assert "".join(shown).strip() in ("", CLEAN)
        yield "ot."

    async def run() -> None:
        model = GuardedModel(FunctionModel(stream_function=stream), guard=guard())
        async with Agent(model).run_stream("Hello") as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                shown.append(piece)

    asyncio.run(run())
    assert "".join(shown) == f"{CLEAN} {NEUTRAL}"
    assert len(shown) > 1


def test_streamed_thinking_and_the_messages_of_the_run_are_moderated() -> None:
    async def run() -> Any:
        model = streaming(
            [{0: DeltaThinkingPart(content=TOXIC[:28])}, {0: DeltaThinkingPart(content=TOXIC[28:])}, CLEAN]
        )
        async with Agent(model).run_stream("Hello") as result:
            await result.get_output()
            return result.new_messages()[-1].parts

    assert asyncio.run(run()) == [ThinkingPart(NEUTRAL), TextPart(CLEAN)]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("text", [CLEAN, TOXIC])
@pytest.mark.parametrize("policy", [Policy(), RAISING])
def test_a_clean_call_reaches_its_tool_and_a_toxic_one_does_not(
    is_streamed: bool, text: str, policy: Policy
) -> None:
    called: list[str] = []
    arguments = json.dumps({"text": text})
    pieces = [
        {0: DeltaToolCall("send", arguments[:9], tool_call_id="c1")},
        {0: DeltaToolCall(None, arguments[9:])},
    ]
    model = (
        streaming(pieces, policy)
        if is_streamed
        else saying(ToolCallPart("send", arguments, tool_call_id="c1"), policy=policy)
    )
    agent = Agent(model)

    @agent.tool_plain
    def send(text: str) -> str:
        """Sends a text."""
        called.append(text)
        return "Sent."

    async def run() -> str:
        if not is_streamed:
            return (await agent.run("Hello")).output
        async with agent.run_stream("Hello") as result:
            return await result.get_output()

    if text == TOXIC and policy is RAISING:
        with pytest.raises(BlockedError):
            asyncio.run(run())
    else:
        assert asyncio.run(run()) == ("Done." if text == CLEAN else Policy().refusal)
    assert called == ([CLEAN] if text == CLEAN else [])


MODES = [ToolOutput(Report, name="report"), NativeOutput(Report), PromptedOutput(Report)]


@pytest.mark.parametrize("output", MODES, ids=["tool", "native", "prompted"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_structured_output_still_parses_and_raises_where_it_is_toxic(output: Any, is_streamed: bool) -> None:
    def model(text: str, policy: Policy) -> GuardedModel:
        content = json.dumps({"summary": text})
        if isinstance(output, ToolOutput):
            call = ToolCallPart("report", content, tool_call_id="c1")
            chunks: list[Any] = [{0: DeltaToolCall("report", content, tool_call_id="c1")}]
            return streaming(chunks, policy) if is_streamed else saying(call, policy=policy)
        profile = {"supports_json_schema_output": True}

        def answer(asked: Any, info: Any) -> ModelResponse:
            return ModelResponse(parts=[TextPart(content)])

        async def stream(asked: Any, info: Any) -> AsyncIterator[str]:
            yield content[:12]
            yield content[12:]

        inner = FunctionModel(answer, stream_function=stream, profile=profile)
        return GuardedModel(inner, guard=guard(policy))

    async def run(text: str, policy: Policy) -> Any:
        agent = Agent(model(text, policy), output_type=output, retries=0)
        if not is_streamed:
            return (await agent.run("Hello")).output
        async with agent.run_stream("Hello") as result:
            return await result.get_output()

    assert asyncio.run(run(CLEAN, Policy())) == Report(summary=CLEAN)
    with pytest.raises(UnexpectedModelBehavior):
        asyncio.run(run(TOXIC, Policy()))
    with pytest.raises(BlockedError):
        asyncio.run(run(TOXIC, RAISING))


def test_a_blocked_segment_ends_the_answer_in_a_refusal_streamed_or_not() -> None:
    text = f"{CLEAN} {TOXIC} {CLEAN}"
    whole = Agent(saying(text, policy=BLOCKING)).run_sync("Hello")
    assert whole.new_messages()[-1].finish_reason == "content_filter"
    pieces = "".join(streamed(streaming([text], BLOCKING)))
    assert whole.output.replace("\n", "") == pieces.replace("\n", "") == f"{CLEAN} {Policy().refusal}"


def test_a_policy_for_whole_answers_withholds_all_and_is_refused_for_streams() -> None:
    policy = Policy(ladder=("block",), block="whole")
    assert Agent(saying(f"{CLEAN} {TOXIC}", policy=policy)).run_sync("Hello").output == Policy().refusal
    with pytest.raises(UsageError, match="block='whole'"):
        streamed(streaming([CLEAN], policy))


def test_an_error_of_the_model_comes_behind_what_is_clean() -> None:
    shown: list[str] = []

    async def run() -> None:
        model = streaming([f"{CLEAN} And so", ConnectionError("gone")])
        async with Agent(model).run_stream("Hello") as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                shown.append(piece)

    with pytest.raises(ConnectionError, match="gone"):
        asyncio.run(run())
    assert "".join(shown) == f"{CLEAN} And so"


def test_a_chat_server_behind_its_own_model_is_moderated(upstream: Upstream) -> None:
    words = [delta(f"{word} ") for word in f"{CLEAN} {TOXIC}".split(" ")]
    upstream.reply = lambda asked: (
        events([*words, delta(reason="stop"), "[DONE]"])
        if asked.body.get("stream")
        else completion([f"{CLEAN} {TOXIC} "])
    )

    def model() -> GuardedModel:
        provider = OpenAIProvider(base_url=f"{upstream.url}/v1", api_key="k")
        return GuardedModel(OpenAIChatModel("m", provider=provider), guard=guard())

    assert Agent(model()).run_sync("Hello").output == f"{CLEAN} {NEUTRAL} "
    assert "".join(streamed(model())) == f"{CLEAN} {NEUTRAL} "


def test_its_own_test_model_with_tools_runs_through_the_guard() -> None:
    agent = Agent(GuardedModel(TestModel(custom_output_text=TOXIC), guard=guard()))

    @agent.tool_plain
    def weather() -> str:
        """The weather."""
        return CLEAN

    assert agent.run_sync("Hello").output == NEUTRAL


def test_answers_of_batches_are_refused() -> None:
    with pytest.raises(UsageError, match="the guard has not seen"):
        saying(CLEAN).batch_decode(None, None)
