"""The Messages API through the proxy, with Anthropic's own clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import JSONResponse

from guardrail import Policy
from guardrail.integrations.openai_server import Keys
from guardrail.integrations.openai_server.sse import EventReader
from tests.integrations.messages.recorded import (
    RECORDED,
    REQUEST,
    Event,
    message,
    stream,
    text,
    tool_use,
)
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

anthropic = pytest.importorskip("anthropic")

ASKED: Any = REQUEST
BLOCKING = Policy(ladder=("block",))


@pytest.fixture(scope="module")
def opened(url: str) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=url, api_key="client-key", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(opened: Any, upstream: Upstream) -> Any:
    """The real client before the proxy."""
    return opened


def says(upstream: Upstream, answer: Event) -> None:
    """From now on the upstream gives this message."""
    answer_with(upstream, answer, stream(answer))


def test_a_message_is_moderated_and_the_request_passes_as_it_is(claude: Any, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    answer = claude.messages.create(**ASKED)
    assert answer.content[0].text == f"{CLEAN} {MENDED} It may rain later, they say."
    assert (answer.stop_reason, answer.usage.output_tokens) == ("end_turn", 15)
    (asked,) = upstream.asked
    assert (asked.path, asked.body) == ("/v1/messages", ASKED)
    assert asked.header("anthropic-version")


@pytest.mark.parametrize("name", RECORDED)
def test_the_client_accumulates_every_streamed_message(claude: Any, upstream: Upstream, name: str) -> None:
    says(upstream, RECORDED[name])
    whole = claude.messages.create(**ASKED)
    with claude.messages.stream(**ASKED) as shown:
        spoken = "".join(event.text for event in shown if event.type == "text")
        final = shown.get_final_message()
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert (final.stop_reason, final.usage.to_dict()) == (whole.stop_reason, whole.usage.to_dict())
    assert spoken == "".join(block.text for block in final.content if block.type == "text")
    assert "idiot" not in str(final.content)


def test_the_asynchronous_client_is_served_too(url: str, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])

    async def ask() -> Any:
        client = anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0)
        async with client, client.messages.stream(**ASKED) as shown:
            return await shown.get_final_text()

    assert asyncio.run(ask()) == f"{CLEAN} {MENDED} It may rain later, they say."


def test_a_blocked_segment_reaches_the_client_as_a_refusal(upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    with (
        proxy(upstream, guard=fake_guard(BLOCKING)) as url,
        anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client,
    ):
        whole = client.messages.create(**ASKED)
        with client.messages.stream(**ASKED) as shown:
            final = shown.get_final_message()
    for answer in (whole, final):
        assert answer.content[0].text == f"{CLEAN} {BLOCKING.refusal}"
        assert answer.stop_reason == "refusal"
        assert answer.stop_details.explanation == BLOCKING.refusal


def test_a_toxic_call_is_withheld(claude: Any, upstream: Upstream) -> None:
    says(upstream, message(tool_use({"text": TOXIC}), reason="tool_use"))
    with claude.messages.stream(**ASKED) as shown:
        final = shown.get_final_message()
    assert (final.stop_reason, final.content[0].type) == ("refusal", "text")


@pytest.mark.parametrize("header", ["x-api-key", "authorization"])
def test_keys_are_taken_and_sent_in_the_header_that_the_client_uses(upstream: Upstream, header: str) -> None:
    says(upstream, RECORDED["text"])
    begins = "Bearer " if header == "authorization" else ""
    with proxy(upstream, keys=Keys((PROXY_KEY,), UPSTREAM_KEY)) as url:
        refused = post(f"{url}/v1/messages", json=ASKED, headers={header: f"{begins}no-such-key"})
        answer = post(f"{url}/v1/messages", json=ASKED, headers={header: f"{begins}{PROXY_KEY}"})
    assert (refused.status_code, answer.status_code) == (401, 200)
    assert refused.json()["type"] == "error"
    assert refused.json()["error"]["type"] == "authentication_error"
    (asked,) = upstream.asked
    assert asked.header(header) == f"{begins}{UPSTREAM_KEY}"
    assert PROXY_KEY not in str(asked.headers)


def test_without_keys_the_clients_own_goes_upstream(url: str, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    post(f"{url}/v1/messages", json=ASKED, headers={"x-api-key": "client-key"})
    assert upstream.asked[0].header("x-api-key") == "client-key"


@pytest.mark.parametrize(
    ("status", "kind", "raised"),
    [
        (400, "invalid_request_error", "BadRequestError"),
        (429, "rate_limit_error", "RateLimitError"),
        (529, "overloaded_error", "APIStatusError"),
    ],
)
def test_an_error_of_the_upstream_keeps_its_kind(
    claude: Any, upstream: Upstream, status: int, kind: str, raised: str
) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "Not now."}, "request_id": "req_1"}
    upstream.reply = lambda asked: JSONResponse(body, status_code=status, headers={"request-id": "req_1"})
    for streamed in (False, True):
        with pytest.raises(getattr(anthropic, raised)) as error:
            claude.messages.create(**ASKED, stream=streamed)
        assert (error.value.status_code, error.value.type) == (status, kind)
        assert error.value.body == {"type": "error", "error": {"type": kind, "message": "Not now."}}


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ([], "api_error"),
        (
            named([{"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}]),
            "overloaded_error",
        ),
        (["nonsense"], "api_error"),
    ],
)
def test_a_stream_that_breaks_ends_with_an_error_that_the_client_raises(
    claude: Any, upstream: Upstream, last: list[Any], kind: str
) -> None:
    upstream.reply = lambda asked: events([*named(stream(RECORDED["text"])[:-3]), *last])
    spoken = ""

    def listen() -> None:
        nonlocal spoken
        for event in claude.messages.create(**ASKED, stream=True):
            spoken += event.delta.text if event.type == "content_block_delta" else ""

    with pytest.raises(anthropic.APIStatusError) as raised:
        listen()
    assert raised.value.type == kind
    assert spoken == f"{CLEAN} {MENDED} It may rain later, they say."


def test_a_policy_that_blocks_whole_texts_refuses_to_stream(upstream: Upstream) -> None:
    with proxy(upstream, guard=fake_guard(Policy(ladder=("block",), block="whole"))) as url:
        answer = post(f"{url}/v1/messages", json=ASKED | {"stream": True})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize("body", [b"[]", b"nonsense"])
def test_a_request_that_is_not_json_is_refused_in_the_form_of_the_api(
    url: str, upstream: Upstream, body: bytes
) -> None:
    answer = post(f"{url}/v1/messages", content=body)
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"


def test_tokens_are_counted_upstream(claude: Any, upstream: Upstream) -> None:
    upstream.reply = lambda asked: JSONResponse({"input_tokens": 14})
    counted = claude.messages.count_tokens(model="small-1", messages=ASKED["messages"])
    assert counted.input_tokens == 14
    assert upstream.asked[0].path == "/v1/messages/count_tokens"


def test_limits_of_the_upstream_are_passed_on(url: str, upstream: Upstream) -> None:
    kept = {"anthropic-ratelimit-requests-remaining": "49", "request-id": "req_011CSHoEeqs5C35K2UUqR7Fy"}
    upstream.reply = lambda asked: JSONResponse(message(text(CLEAN)), headers=kept)
    headers = post(f"{url}/v1/messages", json=ASKED).headers
    assert {name: headers.get(name) for name in kept} == kept


@pytest.mark.parametrize("name", RECORDED)
def test_every_cut_of_the_bytes_brings_the_same_events(name: str) -> None:
    body = b"".join(map(encoded, named(stream(RECORDED[name]))))
    for at in range(len(body)):
        reader = EventReader(limit=len(body))
        found = [*reader.feed(body[:at]), *reader.feed(body[at:]), *reader.close()]
        assert len(found) == len(stream(RECORDED[name])), at
    assert list(map(json.loads, found)) == stream(RECORDED[name])
