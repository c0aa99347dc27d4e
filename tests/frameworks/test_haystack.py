"""Haystack: a real pipeline and a real agent around its mock chat generator."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("haystack", reason="pip install haystack-ai")

from haystack import Pipeline
from haystack.components.agents import Agent
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk, ToolCall
from haystack.tools import create_tool_from_function

from guardrail import BlockedError, Policy, UsageError
from guardrail.integrations.haystack import GuardedChatGenerator
from tests.streaming import CLEAN, NEUTRAL, TOXIC, guard

TEXT = f"{CLEAN} {TOXIC}"
BLOCKING = Policy(ladder=("block",))
RAISING = Policy(ladder=("block",), block="raise")
HELLO = [ChatMessage.from_user("Hello")]


def generator(*responses: Any, policy: Policy | None = None, **options: Any) -> GuardedChatGenerator:
    inner = MockChatGenerator(responses=list(responses), **options)
    return GuardedChatGenerator(inner, guard(policy or Policy()))


def test_a_pipeline_gives_rewritten_replies_and_clean_ones_as_they_were() -> None:
    pipeline = Pipeline()
    pipeline.add_component("llm", generator(TEXT, CLEAN))
    replies = [pipeline.run({"llm": {"messages": HELLO}})["llm"]["replies"][0] for _ in range(2)]
    assert [reply.text for reply in replies] == [f"{CLEAN} {NEUTRAL}", CLEAN]
    assert replies[0].meta["finish_reason"] == "stop"


def test_reasoning_is_rewritten() -> None:
    reply = generator(ChatMessage.from_assistant(CLEAN, reasoning=TOXIC)).run(HELLO)["replies"][0]
    assert (reply.text, reply.reasoning.reasoning_text) == (CLEAN, NEUTRAL)


@pytest.mark.parametrize("is_async", [False, True])
def test_chunks_say_what_the_reply_does(is_async: bool) -> None:
    seen: list[StreamingChunk] = []
    llm = generator(TEXT)

    async def show(chunk: StreamingChunk) -> None:
        seen.append(chunk)

    if is_async:
        replies = asyncio.run(llm.run_async(HELLO, streaming_callback=show))["replies"]
    else:
        replies = llm.run(HELLO, streaming_callback=seen.append)["replies"]
    assert "".join(chunk.content for chunk in seen) == replies[0].text == f"{CLEAN} {NEUTRAL}"
    assert [chunk.finish_reason for chunk in seen if chunk.finish_reason] == ["stop"]
    assert len(seen) > 2


def test_a_callback_that_the_generator_was_made_with_hears_moderated_chunks() -> None:
    seen: list[StreamingChunk] = []
    generator(TEXT, streaming_callback=seen.append).run(HELLO)
    assert "".join(chunk.content for chunk in seen) == f"{CLEAN} {NEUTRAL}"


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("text", [CLEAN, TOXIC])
def test_an_agents_tool_gets_a_clean_call_and_never_a_toxic_one(text: str, streams: bool) -> None:
    called: list[str] = []

    def send(text: str) -> str:
        """Sends a text."""
        called.append(text)
        return "Sent."

    call = ChatMessage.from_assistant(tool_calls=[ToolCall("send", {"text": text}, id="c1")])
    seen: list[StreamingChunk] = []
    agent = Agent(chat_generator=generator(call, TOXIC), tools=[create_tool_from_function(send)])
    result = agent.run(messages=HELLO, streaming_callback=seen.append if streams else None)
    assert result["last_message"].text == (NEUTRAL if text == CLEAN else Policy().refusal)
    assert called == ([CLEAN] if text == CLEAN else [])
    assert "idiot" not in repr(seen)


def test_json_that_was_asked_for_still_parses_or_is_refused() -> None:
    clean, toxic = f'{{"summary": "{CLEAN}"}}', f'{{"summary": "{TOXIC}"}}'
    llm = generator(clean, toxic)
    asked = {"response_format": {"type": "json_object"}}
    replies = [llm.run(HELLO, generation_kwargs=asked)["replies"][0].text for _ in range(2)]
    assert replies == [clean, Policy().refusal]


def test_a_blocked_reply_ends_in_a_refusal_or_raises() -> None:
    seen: list[StreamingChunk] = []
    reply = generator(f"{TEXT} {CLEAN}", policy=BLOCKING).run(HELLO, streaming_callback=seen.append)[
        "replies"
    ][0]
    assert reply.text.split() == f"{CLEAN} {Policy().refusal}".split()
    assert "".join(chunk.content for chunk in seen) == reply.text
    assert reply.meta["finish_reason"] == "content_filter"
    with pytest.raises(BlockedError):
        generator(TEXT, policy=RAISING).run(HELLO)


def test_a_policy_for_whole_answers_is_refused_for_streams() -> None:
    whole = Policy(ladder=("block",), block="whole")
    assert generator(TEXT, policy=whole).run(HELLO)["replies"][0].text == Policy().refusal
    with pytest.raises(UsageError, match="block='whole'"):
        generator(TEXT, policy=whole).run(HELLO, streaming_callback=print)
