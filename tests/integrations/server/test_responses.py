"""The Responses API through the proxy, with OpenAI's own clients."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from starlette.responses import JSONResponse

from guardrail import Policy
from guardrail.integrations.openai_server import Keys
from guardrail.integrations.openai_server.sse import EventReader
from tests.integrations.responses.recorded import (
    RECORDED,
    REQUEST,
    USAGE,
    Event,
    call,
    message,
    stream,
    text_part,
)
from tests.integrations.responses.recorded import response as response_of
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    PROXY_KEY,
    TOXIC,
    UPSTREAM_KEY,
    Upstream,
    encoded,
    events,
    fake_guard,
    post,
    proxy,
)
from tests.integrations.streamed import answer_with, named

ASKED: Any = REQUEST
BLOCKING = Policy(ladder=("block",))


def says(upstream: Upstream, answer: Event) -> None:
    """From now on the upstream gives this response."""
    answer_with(upstream, answer, stream(answer))


def test_a_response_is_moderated_and_the_request_passes_as_it_is(client: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    answer = client.responses.create(**ASKED)
    assert answer.output_text == f"{CLEAN} {MENDED} It may rain later, they say."
    assert answer.previous_response_id == ASKED["previous_response_id"]
    assert answer.metadata == ASKED["metadata"]
    assert answer.usage is not None
    assert answer.usage.to_dict() == USAGE
    (asked,) = upstream.asked
    assert (asked.path, asked.body) == ("/v1/responses", ASKED)


@pytest.mark.parametrize("name", RECORDED)
def test_the_client_reads_every_streamed_response(client: OpenAI, upstream: Upstream, name: str) -> None:
    says(upstream, RECORDED[name])
    whole = client.responses.create(**ASKED)
    shown = list(client.responses.create(**ASKED, stream=True))
    assert [event.sequence_number for event in shown] == list(range(len(shown)))
    final: Any = shown[-1]
    assert final.response.to_dict() == whole.to_dict()
    assert "idiot" not in str([item.to_dict() for item in whole.output])


def test_the_stream_helper_accumulates_the_rewritten_text(client: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["web search"])
    with client.responses.stream(**ASKED) as shown:
        spoken = "".join(event.delta for event in shown if event.type == "response.output_text.delta")
        assert shown.get_final_response().output_text == spoken
    assert MENDED in spoken


def test_the_asynchronous_client_is_served_too(url: str, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])

    async def ask() -> str:
        opened = AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
        async with opened, opened.responses.stream(**ASKED) as shown:
            return (await shown.get_final_response()).output_text

    assert asyncio.run(ask()) == f"{CLEAN} {MENDED} It may rain later, they say."


class Mood(BaseModel):
    mood: str


@pytest.mark.parametrize(("mood", "shown"), [("fine", Mood(mood="fine")), ("idiot", None)])
def test_parsed_answers_are_whole_or_a_refusal(
    client: OpenAI, upstream: Upstream, mood: str, shown: Mood | None
) -> None:
    says(upstream, response_of(message(text_part(json.dumps({"mood": mood})))))
    assert client.responses.parse(**ASKED, text_format=Mood).output_parsed == shown
    with client.responses.stream(**ASKED, text_format=Mood) as parsed:
        assert parsed.get_final_response().output_parsed == shown


def test_a_blocked_segment_reaches_the_client_as_a_refusal(upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    with (
        proxy(upstream, guard=fake_guard(BLOCKING)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as opened,
    ):
        whole = opened.responses.create(**ASKED)
        with opened.responses.stream(**ASKED) as shown:
            final = shown.get_final_response()
    for answer in (final, whole):
        item: Any = answer.output[0]
        assert [part.type for part in item.content] == ["output_text", "refusal"]
        assert item.content[1].refusal == BLOCKING.refusal


def test_a_toxic_call_is_withheld(client: OpenAI, upstream: Upstream) -> None:
    says(upstream, response_of(call(json.dumps({"text": TOXIC}))))
    with client.responses.stream(**ASKED) as shown:
        final = shown.get_final_response()
    assert [item.type for item in final.output] == ["message"]
    assert client.responses.create(**ASKED).output[0].type == "message"


def test_a_policy_that_blocks_whole_texts_refuses_to_stream(upstream: Upstream) -> None:
    with proxy(upstream, guard=fake_guard(Policy(ladder=("block",), block="whole"))) as url:
        answer = post(f"{url}/v1/responses", json=ASKED | {"stream": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


def test_an_error_of_the_upstream_keeps_its_status(client: OpenAI, upstream: Upstream) -> None:
    error = {
        "message": "Previous response not found.",
        "code": "previous_response_not_found",
        "type": "invalid_request_error",
        "param": "previous_response_id",
    }
    upstream.reply = lambda asked: JSONResponse({"error": error}, status_code=400)
    for streamed in (False, True):
        with pytest.raises(openai.BadRequestError) as raised:
            client.responses.create(**ASKED, stream=streamed)
        assert raised.value.code == "previous_response_not_found"


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ([], "upstream_disconnected"),
        (
            [{"type": "error", "code": "server_error", "message": "Overloaded.", "param": None}],
            "server_error",
        ),
        ([{"type": "error", "error": {"code": "server_error", "message": "Overloaded."}}], "server_error"),
        (["nonsense"], "upstream_malformed"),
    ],
)
def test_a_stream_that_breaks_ends_with_an_error_that_the_client_raises(
    client: OpenAI, upstream: Upstream, last: list[Any], code: str
) -> None:
    begun = stream(RECORDED["text"])[:-4]
    upstream.reply = lambda asked: events([*named(begun), *last])
    spoken = ""

    def listen() -> None:
        nonlocal spoken
        for event in client.responses.create(**ASKED, stream=True):
            spoken += event.delta if event.type == "response.output_text.delta" else ""

    with pytest.raises(openai.APIError) as raised:
        listen()
    assert raised.value.code == code
    assert spoken == f"{CLEAN} {MENDED} It may rain later, they say."


def test_an_error_event_is_numbered_and_documented(url: str, upstream: Upstream) -> None:
    upstream.reply = lambda asked: events(named(stream(RECORDED["text"])[:5]))
    body = post(f"{url}/v1/responses", json=ASKED | {"stream": True}).text
    name, payload = body.strip().split("\n\n")[-1].split("\n")
    error = json.loads(payload.removeprefix("data: "))
    assert name == "event: error"
    assert {"type", "code", "message", "param", "sequence_number"} < set(error)
    assert error["sequence_number"] == body.count("data: ") - 1


def test_a_proxy_with_keys_sends_its_own_upstream(upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    with proxy(upstream, keys=Keys((PROXY_KEY,), UPSTREAM_KEY)) as url:
        assert post(f"{url}/v1/responses", json=ASKED).status_code == 401
        with OpenAI(base_url=f"{url}/v1", api_key=PROXY_KEY, max_retries=0) as opened:
            assert opened.responses.create(**ASKED).output_text
    assert [asked.header("authorization") for asked in upstream.asked] == [f"Bearer {UPSTREAM_KEY}"]


def test_a_response_that_was_made_before_is_moderated_too(client: OpenAI, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    whole = client.responses.retrieve("resp_1", include=["reasoning.encrypted_content"])
    cancelled = client.responses.cancel("resp_1")
    assert {whole.output_text, cancelled.output_text} == {f"{CLEAN} {MENDED} It may rain later, they say."}
    upstream.reply = lambda asked: events(named(stream(RECORDED["text"])[3:]))
    shown = list(client.responses.retrieve("resp_1", stream=True, starting_after=2))
    assert [event.sequence_number for event in shown] == list(range(3, 3 + len(shown)))
    assert "idiot" not in str([event for event in shown if event.type != "response.completed"])
    assert [asked.method for asked in upstream.asked] == ["GET", "POST", "GET"]


@pytest.mark.parametrize("name", RECORDED)
def test_every_cut_of_the_bytes_brings_the_same_events(name: str) -> None:
    body = b"".join(map(encoded, named(stream(RECORDED[name]))))
    for at in range(len(body)):
        reader = EventReader(limit=len(body))
        found = [*reader.feed(body[:at]), *reader.feed(body[at:]), *reader.close()]
        assert len(found) == len(stream(RECORDED[name])), at
    assert list(map(json.loads, found)) == stream(RECORDED[name])
