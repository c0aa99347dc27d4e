"""guard.openai: OpenAI's own clients, sync and async, before a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ValidationError
from starlette.responses import JSONResponse

from guardrail import Policy
from guardrail.errors import BlockedError, UsageError
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    TOXIC,
    Upstream,
    chat_answer,
    completion,
    delta,
    events,
    fake_guard,
    text_delta,
    usage_chunk,
)

QUESTION: Any = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


class Report(BaseModel):
    summary: str


@pytest.fixture
def client(upstream: Upstream) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as opened:
        yield fake_guard().openai(opened)


def asynchronous(upstream: Upstream, ask: Any) -> Any:
    """What comes of asking with a guarded asynchronous client."""

    async def run() -> Any:
        async with AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as opened:
            return await ask(fake_guard().openai(opened))

    return asyncio.run(run())


def words(*pieces: str) -> list[Any]:
    usual = [delta(piece) for piece in pieces]
    return [*usual, delta(reason="stop"), usage_chunk(), "[DONE]"]


def said(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_an_answer_is_moderated_and_stays_an_answer(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([TOXIC])
    answer = client.chat.completions.create(**QUESTION)
    assert type(answer) is ChatCompletion
    assert answer.choices[0].message.content == MENDED
    assert isinstance(client, OpenAI)


def test_a_stream_is_moderated_and_stays_a_stream(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: events(words(f"{CLEAN} ", TOXIC[:30], TOXIC[30:]))
    with client.chat.completions.create(**QUESTION, stream=True) as stream:
        chunks = list(stream)
    assert said(chunks) == f"{CLEAN} {MENDED}"
    assert chunks[-1].usage is not None
    assert [c.finish_reason for f in chunks for c in f.choices if c.finish_reason] == ["stop"]


def test_an_asynchronous_client_is_moderated_too(upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([TOXIC])

    async def ask(client: AsyncOpenAI) -> ChatCompletion:
        assert isinstance(client, AsyncOpenAI)
        return await client.chat.completions.create(**QUESTION)

    assert asynchronous(upstream, ask).choices[0].message.content == MENDED
    upstream.reply = lambda asked: events(words(f"{CLEAN} ", TOXIC[:30], TOXIC[30:]))

    async def ask_for_a_stream(client: AsyncOpenAI) -> list[Any]:
        async with await client.chat.completions.create(**QUESTION, stream=True) as stream:
            return [chunk async for chunk in stream]

    assert said(asynchronous(upstream, ask_for_a_stream)) == f"{CLEAN} {MENDED}"


def test_the_clients_own_accumulator_reads_a_moderated_stream(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: events(words(f"{CLEAN} ", TOXIC[:30], TOXIC[30:]))
    with client.chat.completions.stream(**QUESTION) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        whole = stream.get_final_completion().choices[0].message.content
    assert "".join(deltas) == whole == f"{CLEAN} {MENDED}"


def test_the_asynchronous_accumulator_reads_a_moderated_stream(upstream: Upstream) -> None:
    upstream.reply = lambda asked: events(words(f"{CLEAN} ", TOXIC[:30], TOXIC[30:]))

    async def ask(client: AsyncOpenAI) -> Any:
        async with client.chat.completions.stream(**QUESTION) as stream:
            await stream.until_done()
            return await stream.get_final_completion()

    assert asynchronous(upstream, ask).choices[0].message.content == f"{CLEAN} {MENDED}"


@pytest.mark.parametrize("summary", [CLEAN, TOXIC])
def test_an_accumulated_document_is_clean_or_is_not_there(
    client: OpenAI, upstream: Upstream, summary: str
) -> None:
    document = json.dumps({"summary": summary})
    upstream.reply = lambda asked: events(words(document[:9], document[9:]))
    with client.chat.completions.stream(**QUESTION, response_format=Report) as stream:
        assert TOXIC not in "".join(getattr(event, "delta", "") or "" for event in stream)
        try:
            parsed = stream.get_final_completion().choices[0].message.parsed
        except ValidationError:
            parsed = None
    assert (parsed == Report(summary=CLEAN)) == (summary == CLEAN)


def test_leaving_a_stream_closes_the_connection(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: events(words(*[f"{CLEAN} "] * 20))
    stream = client.chat.completions.create(**QUESTION, stream=True)
    next(iter(stream))
    stream.close()
    with pytest.raises(StopIteration):
        next(iter(stream))


def test_text_completions_are_moderated(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: events([text_delta(TOXIC), text_delta("", reason="stop"), "[DONE]"])
    chunks = client.completions.create(model="m", prompt="Hello", stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == MENDED


@pytest.mark.parametrize("summary", [CLEAN, TOXIC])
def test_a_parsed_answer_is_clean_or_is_not_there(client: OpenAI, upstream: Upstream, summary: str) -> None:
    upstream.reply = lambda asked: completion([json.dumps({"summary": summary})])
    message = client.chat.completions.parse(**QUESTION, response_format=Report).choices[0].message
    assert message.parsed == (Report(summary=CLEAN) if summary == CLEAN else None)
    assert "idiot" not in repr(message)


def test_a_blocked_answer_raises_where_the_policy_says_so(upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([TOXIC])
    raising = fake_guard(Policy(ladder=("block",), block="raise"))
    with OpenAI(base_url=f"{upstream.url}/v1", api_key="k") as opened, pytest.raises(BlockedError):
        raising.openai(opened).chat.completions.create(**QUESTION)


@pytest.mark.parametrize("way", ["copy", "with_options"])
def test_a_copy_is_guarded_and_the_client_itself_is_not(client: OpenAI, upstream: Upstream, way: str) -> None:
    upstream.reply = lambda asked: completion([TOXIC])
    copied = getattr(client, way)(timeout=10)
    assert copied.timeout == 10
    assert copied.chat.completions.create(**QUESTION).choices[0].message.content == MENDED
    with OpenAI(base_url=f"{upstream.url}/v1", api_key="k") as opened:
        fake_guard().openai(opened)
        assert opened.chat.completions.create(**QUESTION).choices[0].message.content == TOXIC


def test_what_holds_no_answer_goes_through(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: JSONResponse({"data": [{"id": "small-1"}]})
    assert [model.id for model in client.models.list().data] == ["small-1"]


@pytest.mark.parametrize(
    "past",
    [
        lambda client: client.with_raw_response.chat.completions.create(**QUESTION),
        lambda client: client.chat.with_raw_response.completions,
        lambda client: client.chat.completions.with_raw_response.create(**QUESTION),
        lambda client: client.chat.completions.with_streaming_response.create(**QUESTION),
        lambda client: client.responses.with_raw_response.create(input="Hello", model="m"),
        lambda client: client.beta.threads,
        lambda client: client.with_options(timeout=1).chat.completions.with_raw_response.create(**QUESTION),
    ],
)
def test_a_way_past_the_guard_is_refused(client: OpenAI, past: Any) -> None:
    with pytest.raises(UsageError, match="the guard has not seen"):
        past(client)


def test_an_unlucky_fingerprint_stops_no_answer(client: OpenAI, upstream: Upstream) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": CLEAN}}
    upstream.reply = lambda asked: JSONResponse(chat_answer([choice], system_fingerprint="fp_1d107bad5e"))
    assert client.chat.completions.create(**QUESTION).system_fingerprint == "fp_1d107bad5e"


@pytest.mark.parametrize("other", [object(), OpenAI, None])
def test_another_object_is_a_clear_error(other: Any) -> None:
    with pytest.raises(UsageError, match="OpenAI or AsyncOpenAI"):
        fake_guard().openai(other)
