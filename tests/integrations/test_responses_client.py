"""guard.openai: responses of OpenAI's own clients, whole, streamed, by the stream helper and parsed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ParsedResponse, Response
from pydantic import BaseModel

from guardrail import Policy
from guardrail.errors import BlockedError, UsageError
from tests.integrations.responses.recorded import RECORDED, REQUEST, message, response, stream, text_part
from tests.integrations.server.running import CLEAN, MENDED, TOXIC, Upstream, events, fake_guard
from tests.integrations.streamed import answer_with

ASKED: Any = REQUEST
SHOWN = f"{CLEAN} {MENDED} It may rain later, they say."
RAISING = Policy(ladder=("block",), block="raise")


@pytest.fixture
def plain(upstream: Upstream) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as opened:
        yield opened


def says(upstream: Upstream, answer: dict[str, Any]) -> None:
    """From now on the upstream gives this response."""
    answer_with(upstream, answer, stream(answer))


def asynchronous(upstream: Upstream, ask: Any, policy: Policy | None = None) -> Any:
    """What comes of asking with a guarded asynchronous client."""

    async def run() -> Any:
        async with AsyncOpenAI(base_url=f"{upstream.url}/v1", api_key="k", max_retries=0) as opened:
            return await ask(fake_guard(policy).openai(opened))

    return asyncio.run(run())


def test_a_response_is_moderated_and_stays_a_response(plain: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    answer = fake_guard().openai(plain).responses.create(**ASKED)
    assert type(answer) is Response
    assert answer.output_text == SHOWN
    assert plain.responses.create(**ASKED).output_text != SHOWN


@pytest.mark.parametrize("name", RECORDED)
def test_every_stream_says_what_the_whole_says(plain: OpenAI, upstream: Upstream, name: str) -> None:
    says(upstream, RECORDED[name])
    client = fake_guard().openai(plain)
    whole = client.responses.create(**ASKED)
    with client.responses.create(**ASKED, stream=True) as shown:
        assert isinstance(shown, openai.Stream)
        seen: list[Any] = list(shown)
    assert seen[-1].response.to_dict() == whole.to_dict()
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert "idiot" not in str([item.to_dict() for item in whole.output])


def test_a_clean_response_is_not_changed(plain: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    tolerant = fake_guard(Policy(threshold=0.95)).openai(plain)
    assert tolerant.responses.create(**ASKED).to_dict() == RECORDED["text"]
    seen = [event.to_dict() for event in tolerant.responses.create(**ASKED, stream=True)]
    assert seen == stream(RECORDED["text"])


def test_the_stream_helper_accumulates_what_was_shown(plain: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    with fake_guard().openai(plain).responses.stream(**ASKED) as shown:
        spoken = "".join(event.delta for event in shown if event.type == "response.output_text.delta")
        assert shown.get_final_response().output_text == spoken == SHOWN


def test_asynchronous_clients_are_moderated_too(upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])

    async def ask(client: AsyncOpenAI) -> list[str]:
        whole = await client.responses.create(**ASKED)
        streamed = [event async for event in await client.responses.create(**ASKED, stream=True)]
        async with client.responses.stream(**ASKED) as shown:
            final = await shown.get_final_response()
        last: Any = streamed[-1]
        return [whole.output_text, last.response.output_text, final.output_text]

    assert asynchronous(upstream, ask) == [SHOWN] * 3


class Mood(BaseModel):
    mood: str


@pytest.mark.parametrize(("mood", "shown"), [("fine", Mood(mood="fine")), ("idiot", None)])
def test_parsed_responses_are_whole_or_a_refusal(
    plain: OpenAI, upstream: Upstream, mood: str, shown: Mood | None
) -> None:
    says(upstream, response(message(text_part(json.dumps({"mood": mood})))))
    client = fake_guard().openai(plain)
    answer = client.responses.parse(**ASKED, text_format=Mood)
    assert isinstance(answer, ParsedResponse)
    assert answer.output_parsed == shown
    assert "idiot" not in str(answer.output)
    with client.responses.stream(**ASKED, text_format=Mood) as parsed:
        assert parsed.get_final_response().output_parsed == shown

    async def ask(opened: AsyncOpenAI) -> Any:
        return (await opened.responses.parse(**ASKED, text_format=Mood)).output_parsed

    assert asynchronous(upstream, ask) == shown


def test_a_blocked_response_raises_where_the_policy_says_so(plain: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    client = fake_guard(RAISING).openai(plain)
    with pytest.raises(BlockedError):
        client.responses.create(**ASKED)
    seen: list[Any] = []
    with pytest.raises(BlockedError) as raised:
        seen.extend(iter(client.responses.create(**ASKED, stream=True)))
    assert raised.value.outcome.text == f"{CLEAN} "
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == f"{CLEAN} "

    async def ask(opened: AsyncOpenAI) -> Any:
        return await opened.responses.create(**ASKED)

    with pytest.raises(BlockedError):
        asynchronous(upstream, ask, RAISING)


def test_a_blocked_response_is_a_refusal_otherwise(plain: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    policy = Policy(ladder=("block",))
    with fake_guard(policy).openai(plain).responses.stream(**ASKED) as shown:
        item: Any = shown.get_final_response().output[0]
    assert item.content[-1].refusal == policy.refusal


def test_a_policy_that_blocks_whole_texts_refuses_to_stream(plain: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    client = fake_guard(Policy(ladder=("block",), block="whole")).openai(plain)
    with pytest.raises(UsageError, match="stream"):
        client.responses.create(**ASKED, stream=True)


@pytest.mark.parametrize("way", ["retrieve", "cancel"])
def test_a_response_that_is_asked_for_later_is_moderated(plain: OpenAI, upstream: Upstream, way: str) -> None:
    says(upstream, RECORDED["text"])
    assert getattr(fake_guard().openai(plain).responses, way)("resp_1").output_text == SHOWN


def test_a_canary_is_in_no_log(plain: OpenAI, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    says(upstream, response(message(text_part(f"{CLEAN} The canary zq81 is an idiot."))))
    client = fake_guard().openai(plain)
    with caplog.at_level("DEBUG", logger="guardrail"):
        client.responses.create(**ASKED)
        with client.responses.stream(**ASKED) as shown:
            shown.until_done()
    assert "rewritten" in caplog.text
    assert "zq81" not in caplog.text


def test_leaving_a_stream_closes_the_connection(plain: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    with fake_guard().openai(plain).responses.create(**ASKED, stream=True) as shown:
        next(iter(shown))
    assert shown.response.is_closed


def test_text_before_a_broken_connection_is_shown(plain: OpenAI, upstream: Upstream) -> None:
    begun = [event for event in stream(RECORDED["text"]) if event["type"] != "response.completed"][:-3]
    upstream.reply = lambda asked: events([*begun, {"error": {"message": "Overloaded.", "code": "full"}}])
    seen: list[Any] = []

    def listen() -> None:
        for event in fake_guard().openai(plain).responses.create(**ASKED, stream=True):
            seen.append(event)  # what came before the error counts

    with pytest.raises(openai.APIError):
        listen()
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == SHOWN
    assert TOXIC not in str(seen)
