"""Monitor mode in process: clients and chains give what they gave while the detector hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from openai import AsyncOpenAI, OpenAI

from guardrail import Action, Guard, Outcome, Policy, Verdict
from guardrail.integrations.langchain import wrap
from tests.fakes import WordDetector
from tests.integrations.langchain.models import Scripted
from tests.integrations.messages import recorded as messages
from tests.integrations.responses import recorded as responses
from tests.integrations.server.running import TOXIC, Upstream, delta, events, fake_guard
from tests.integrations.streamed import answer_with
from tests.waiting import PATIENCE, wait_until

CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "idiot"}'}}
QUESTION: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}


class Watched:
    """A guard in monitor mode whose detector hangs until it is let go, and what it was heard to say."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.outcomes: list[Outcome] = []
        policy = Policy(enforce=False, block="raise")
        self.guard: Guard = fake_guard(policy, detector=self.detect, on_outcome=self.outcomes.append)

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        assert self.go.wait(PATIENCE)
        return WordDetector().detect(texts)

    def would(self) -> set[Action | None]:
        """What would be done, once all was judged."""
        assert self.outcomes == []
        self.go.set()
        wait_until(lambda: any(outcome.would is Action.REWRITTEN for outcome in self.outcomes))
        assert all(outcome.action is Action.PASSED for outcome in self.outcomes)
        return {outcome.would for outcome in self.outcomes}


@pytest.fixture
def watched() -> Any:
    made = Watched()
    yield made
    made.go.set()


def dumped(stream: Any) -> list[Any]:
    return [chunk.to_dict() for chunk in stream]


def test_openais_chat_streams_pass_as_they_are(upstream: Upstream, watched: Watched) -> None:
    said = [delta(TOXIC), delta(None, tool_calls=[CALL]), delta(None, reason="tool_calls"), "[DONE]"]
    upstream.reply = lambda asked: events(said)
    with OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as plain:
        expected = dumped(plain.chat.completions.create(**QUESTION))
        assert dumped(watched.guard.openai(plain).chat.completions.create(**QUESTION)) == expected

    async def asynchronous() -> list[Any]:
        async with AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as opened:
            stream = await watched.guard.openai(opened).chat.completions.create(**QUESTION)
            return [chunk.to_dict() async for chunk in stream]

    assert asyncio.run(asynchronous()) == expected
    assert Action.REWRITTEN in watched.would()


def test_openais_responses_pass_as_they_are(upstream: Upstream, watched: Watched) -> None:
    answer = responses.response(responses.message(responses.text_part(TOXIC)))
    answer_with(upstream, answer, responses.stream(answer))
    asked: Any = responses.REQUEST
    with OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as plain:
        expected = dumped(plain.responses.create(**asked, stream=True))
        guarded = watched.guard.openai(plain)
        assert dumped(guarded.responses.create(**asked, stream=True)) == expected
        watched.would()
        assert guarded.responses.create(**asked).output_text == TOXIC


def test_anthropics_messages_pass_as_they_are(upstream: Upstream, watched: Watched) -> None:
    anthropic = pytest.importorskip("anthropic")
    answer = messages.message(messages.text(TOXIC))
    answer_with(upstream, answer, messages.stream(answer))
    asked: Any = messages.REQUEST
    with anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=0) as plain:
        expected = dumped(plain.messages.create(**asked, stream=True))
        guarded = watched.guard.anthropic(plain)
        assert dumped(guarded.messages.create(**asked, stream=True)) == expected
        watched.would()
        assert guarded.messages.create(**asked).content[0].text == TOXIC


def test_a_chain_streams_its_chunks_as_they_come(watched: Watched) -> None:
    called = {"name": "f", "args": '{"a": "idiot"}', "id": "c1", "index": 0}
    script = [AIMessageChunk(TOXIC), AIMessageChunk("", tool_call_chunks=[called]), AIMessageChunk(" Idiot!")]
    chain = wrap(watched.guard, Scripted(script=[script]))
    came = [chunk for chunk in chain.stream("hello") if chunk.content or chunk.tool_call_chunks]
    assert [(chunk.content, chunk.tool_call_chunks) for chunk in came] == [
        (chunk.content, chunk.tool_call_chunks) for chunk in script
    ]
    watched.would()
    assert wrap(watched.guard, Scripted(script=[script])).invoke("hello").content == f"{TOXIC} Idiot!"


def test_an_asynchronous_chain_does_so_too(watched: Watched) -> None:
    script = [AIMessageChunk(TOXIC), AIMessageChunk(" Idiot!")]

    async def run() -> str:
        chain = wrap(watched.guard, Scripted(script=[script]))
        return "".join([str(chunk.content) async for chunk in chain.astream("hello")])

    assert asyncio.run(run()) == f"{TOXIC} Idiot!"
    watched.would()
