"""Every way in gives the same texts, and the hook hears the same outcomes."""

from __future__ import annotations

import asyncio
import csv
import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from openai import OpenAI
from typer.testing import CliRunner

from guardrail import Guard, Outcome, Policy, detox_guard
from guardrail.integrations.cli import app
from guardrail.integrations.langchain import DetoxMiddleware, wrap
from guardrail.integrations.rows.job import Job
from guardrail.outcome import Timings
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.integrations.server.running import Upstream, completion, delta, post, proxy, serving

TEXTS = [
    "The meeting starts at nine.\n\n- Bring the *figures*.\n",
    "What a day it was today. You are an idiot and a moron. See you at nine!",
    "All is well here.\nBut everybody says that you are a moron",
    "You. Are. A. Moron. Yes. It was fine otherwise, I think so at least.",
    "Run `x = 1` and then this:\n\n```\nprint('you moron')\n```\nDone, I hope.",
    "That crap again, who wrote it?  Some moron from upstairs did. Fine \U0001f642 then.",
]
CHUNK = 7
POLICIES = {
    "whole ladder": Policy(),
    "mask": Policy(ladder=("mask", "block")),
    "block": Policy(ladder=("block",)),
}
QUESTION: Any = {"messages": [HumanMessage("?")]}
Way = Callable[[Guard, list[str], Path], list[str]]


def chunks(text: str) -> Iterator[str]:
    """The text as it would be generated."""
    for start in range(0, len(text), CHUNK):
        yield text[start : start + CHUNK]


async def achunks(text: str) -> AsyncIterator[str]:
    for chunk in chunks(text):
        yield chunk


async def joined(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


def plain_function(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    @detox_guard(guard=guard)
    def agent(text: str) -> str:
        return text

    return [agent(text) for text in texts]


def coroutine_function(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    @detox_guard(guard=guard)
    async def agent(text: str) -> str:
        return text

    return [asyncio.run(agent(text)) for text in texts]


def generator_function(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    @detox_guard(guard=guard)
    def agent(text: str) -> Iterator[str]:
        yield from chunks(text)

    return ["".join(agent(text)) for text in texts]


def asynchronous_generator_function(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    @detox_guard(guard=guard)
    async def agent(text: str) -> AsyncIterator[str]:
        async for chunk in achunks(text):
            yield chunk

    return [asyncio.run(joined(agent(text))) for text in texts]


def runnable_invoke(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    guarded = wrap(guard, RunnableLambda(AIMessage))
    return [str(guarded.invoke(text).content) for text in texts]


def chain(guard: Guard) -> Runnable[str, str]:
    """A chain that speaks what it is given, chunk by chunk, under moderation."""

    def spoken(given: Iterator[str]) -> Iterator[str]:
        yield from chunks("".join(given))

    async def aspoken(given: AsyncIterator[str]) -> AsyncIterator[str]:
        async for chunk in achunks(await joined(given)):
            yield chunk

    return wrap(guard, RunnableGenerator(spoken, aspoken))


def agent_of(guard: Guard, text: str) -> Any:
    """An agent whose model says the text, word by word where it is streamed."""
    model = GenericFakeChatModel(messages=iter([AIMessage(text)]))
    return create_agent(model, tools=[], middleware=[DetoxMiddleware(guard)])


def agent_state(guard: Guard, text: str) -> str:
    return str(agent_of(guard, text).invoke(QUESTION)["messages"][-1].content)


def agent_stream(guard: Guard, text: str) -> str:
    streamed = agent_of(guard, text).stream(QUESTION, stream_mode="messages")
    return "".join(chunk.text for chunk, _ in streamed)


def whole_completion(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    with proxied(guard) as (client, upstream):
        answers = []
        for text in texts:
            upstream.reply = functools.partial(lambda text, asked: completion([text]), text)
            answers.append(ask(client).choices[0].message.content or "")
    return answers


def streamed_completion(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    with proxied(guard) as (client, upstream):
        answers = []
        for text in texts:
            upstream.says(*map(delta, chunks(text)), delta(reason="stop"), "[DONE]")
            with ask(client, stream=True) as stream:
                pieces = [choice.delta.content or "" for event in stream for choice in event.choices]
            answers.append("".join(pieces))
    return answers


def ask(client: OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], **options)


@contextmanager
def proxied(guard: Guard) -> Iterator[tuple[OpenAI, Upstream]]:
    """A client before the proxy, and what answers behind it."""
    upstream = Upstream()
    with (
        serving(upstream.app()) as upstream.url,
        proxy(upstream, guard=guard) as url,
        OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client, upstream


def detoxify_endpoint(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    with proxy(guard=guard) as url:
        answers = [post(f"{url}/v1/detoxify", json={"input": text}).json() for text in texts]
    return [answer["outcomes"][0]["text"] for answer in answers]


def filtered_json_lines(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    Job(source=source, target=target).run(guard)
    return [json.loads(line)["text"] for line in target.read_text().splitlines()]


def filtered_csv(guard: Guard, texts: list[str], folder: Path) -> list[str]:
    source, target = folder / "in.csv", folder / "out.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(texts)])
    Job(source=source, target=target).run(guard)
    with target.open(newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def one_by_one(way: Callable[[Guard, str], str]) -> Way:
    """A way that takes one text at a time."""
    return lambda guard, texts, folder: [way(guard, text) for text in texts]


WAYS: dict[str, Way] = {
    "check": one_by_one(lambda guard, text: guard.check(text).text),
    "acheck": one_by_one(lambda guard, text: asyncio.run(guard.acheck(text)).text),
    "check_many": lambda guard, texts, folder: [outcome.text for outcome in guard.check_many(texts)],
    "moderate": one_by_one(lambda guard, text: guard.moderate(text)),
    "amoderate": one_by_one(lambda guard, text: asyncio.run(guard.amoderate(text))),
    "stream": one_by_one(lambda guard, text: "".join(guard.stream(chunks(text)))),
    "astream": one_by_one(lambda guard, text: asyncio.run(joined(guard.astream(achunks(text))))),
    "chain stream": one_by_one(lambda guard, text: "".join(chain(guard).stream(text))),
    "chain transform": one_by_one(lambda guard, text: "".join(chain(guard).transform(chunks(text)))),
    "chain batch": one_by_one(lambda guard, text: chain(guard).batch([text])[0]),
    "chain ainvoke": one_by_one(lambda guard, text: asyncio.run(chain(guard).ainvoke(text))),
    "chain astream": one_by_one(lambda guard, text: asyncio.run(joined(chain(guard).astream(text)))),
    "chain atransform": one_by_one(
        lambda guard, text: asyncio.run(joined(chain(guard).atransform(achunks(text))))
    ),
    "chain abatch": one_by_one(lambda guard, text: asyncio.run(chain(guard).abatch([text]))[0]),
    "agent's state": one_by_one(agent_state),
    "agent's stream": one_by_one(agent_stream),
    **{
        way.__name__: way
        for way in (
            plain_function,
            coroutine_function,
            generator_function,
            asynchronous_generator_function,
            runnable_invoke,
            whole_completion,
            streamed_completion,
            detoxify_endpoint,
            filtered_json_lines,
            filtered_csv,
        )
    },
}


def untimed(outcome: Outcome) -> Outcome:
    return replace(outcome, timings=Timings())


@pytest.fixture
def parts() -> dict[str, Any]:
    return {
        "detector": WordDetector(),
        "lexicon": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
    }


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES.keys())
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_every_way_in_gives_what_check_gives(
    way: Way, policy: Policy, parts: dict[str, Any], tmp_path: Path
) -> None:
    heard: list[Outcome] = []
    expected = [Guard(policy=policy, **parts).check(text) for text in TEXTS]
    released = way(Guard(policy=policy, on_outcome=heard.append, **parts), TEXTS, tmp_path)
    assert released == [outcome.text for outcome in expected]
    assert [untimed(outcome) for outcome in heard] == [untimed(outcome) for outcome in expected]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_every_way_in_gives_the_same_with_the_shipped_detector(way: Way, tmp_path: Path) -> None:
    guard = Guard(policy=Policy(ladder=("mask", "block"), detect_timeout=None))
    expected = [guard.check(text).text for text in TEXTS]
    assert way(guard, TEXTS, tmp_path) == expected
    assert expected[1] != TEXTS[1]


def test_the_command_gives_the_same(monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any]) -> None:
    class PartGuard(Guard):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**parts | arguments)

    monkeypatch.setattr("guardrail.guard.Guard", PartGuard)
    for text in TEXTS:
        result = CliRunner().invoke(app, ["check", "--json", text])
        expected = Guard(**parts).check(text)
        row = json.loads(result.stdout)
        assert (row["text"], row["action"]) == (expected.text, str(expected.action))
