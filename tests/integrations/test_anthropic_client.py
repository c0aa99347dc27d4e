"""guard.anthropic: Anthropic's own clients, sync and async, before a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from starlette.responses import JSONResponse

from guardrail import Policy
from guardrail.errors import BlockedError, UsageError
from tests.integrations.messages.recorded import RECORDED, REQUEST, message, stream, text
from tests.integrations.server.running import CLEAN, MENDED, Upstream, fake_guard
from tests.integrations.streamed import answer_with

anthropic = pytest.importorskip("anthropic")

ASKED: Any = REQUEST
SHOWN = f"{CLEAN} {MENDED} It may rain later, they say."
RAISING = Policy(ladder=("block",), block="raise")


@pytest.fixture
def plain(upstream: Upstream) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=upstream.url, api_key="k", max_retries=0) as opened:
        yield opened


def says(upstream: Upstream, answer: dict[str, Any]) -> None:
    """From now on the upstream gives this message."""
    answer_with(upstream, answer, stream(answer))


def asynchronous(upstream: Upstream, ask: Any, policy: Policy | None = None) -> Any:
    """What comes of asking with a guarded asynchronous client."""

    async def run() -> Any:
        async with anthropic.AsyncAnthropic(base_url=upstream.url, api_key="k", max_retries=0) as opened:
            return await ask(fake_guard(policy).anthropic(opened))

    return asyncio.run(run())


def test_a_message_is_moderated_and_stays_a_message(plain: Any, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    client = fake_guard().anthropic(plain)
    answer = client.messages.create(**ASKED)
    assert isinstance(client, anthropic.Anthropic)
    assert type(answer) is anthropic.types.Message
    assert answer.content[0].text == SHOWN
    assert plain.messages.create(**ASKED).content[0].text != SHOWN


@pytest.mark.parametrize("name", RECORDED)
def test_every_stream_says_what_the_whole_says(plain: Any, upstream: Upstream, name: str) -> None:
    says(upstream, RECORDED[name])
    client = fake_guard().anthropic(plain)
    whole = client.messages.create(**ASKED)
    with client.messages.stream(**ASKED) as shown:
        final = shown.get_final_message()
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    with client.messages.create(**ASKED, stream=True) as raw:
        kinds = [event.type for event in raw]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert "idiot" not in str(whole.content)


def test_asynchronous_clients_are_moderated_too(upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])

    async def ask(client: Any) -> list[str]:
        whole = await client.messages.create(**ASKED)
        async with client.messages.stream(**ASKED) as shown:
            spoken = "".join([text async for text in shown.text_stream])
        return [whole.content[0].text, spoken]

    assert asynchronous(upstream, ask) == [SHOWN] * 2


class Mood(BaseModel):
    mood: str


@pytest.mark.parametrize("mood", ["fine", "idiot"])
def test_parsed_messages_are_whole_or_refused(plain: Any, upstream: Upstream, mood: str) -> None:
    says(upstream, message(text(json.dumps({"mood": mood}))))

    def ask() -> Any:
        return fake_guard().anthropic(plain).messages.parse(**ASKED, output_format=Mood)

    if mood == "fine":
        assert ask().parsed_output == Mood(mood="fine")
    else:
        with pytest.raises(ValueError, match="JSON") as raised:  # the refusal is no JSON
            ask()
        assert "idiot" not in str(raised.value)


def test_a_blocked_message_raises_where_the_policy_says_so(plain: Any, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    client = fake_guard(RAISING).anthropic(plain)
    with pytest.raises(BlockedError):
        client.messages.create(**ASKED)
    with client.messages.stream(**ASKED) as shown, pytest.raises(BlockedError):
        shown.get_final_message()


def test_a_blocked_message_stops_with_a_refusal_otherwise(plain: Any, upstream: Upstream) -> None:
    says(upstream, RECORDED["text"])
    policy = Policy(ladder=("block",))
    answer = fake_guard(policy).anthropic(plain).messages.create(**ASKED)
    assert (answer.stop_reason, answer.content[0].text) == ("refusal", f"{CLEAN} {policy.refusal}")


@pytest.mark.parametrize("way", ["copy", "with_options"])
def test_a_copy_is_guarded_too(plain: Any, upstream: Upstream, way: str) -> None:
    says(upstream, RECORDED["text"])
    copied = getattr(fake_guard().anthropic(plain), way)(timeout=10)
    assert copied.messages.create(**ASKED).content[0].text == SHOWN


@pytest.mark.parametrize(
    "past",
    [
        lambda client: client.with_raw_response.messages.create(**ASKED),
        lambda client: client.messages.with_raw_response.create(**ASKED),
        lambda client: client.messages.with_streaming_response.create(**ASKED),
        lambda client: client.messages.batches.results("msgbatch_1"),
        lambda client: client.beta.messages.create(**ASKED),
    ],
)
def test_a_way_past_the_guard_is_refused(plain: Any, past: Any) -> None:
    with pytest.raises(UsageError, match="the guard has not seen"):
        past(fake_guard().anthropic(plain))


def test_what_holds_no_answer_goes_through(plain: Any, upstream: Upstream) -> None:
    upstream.reply = lambda asked: JSONResponse({"input_tokens": 14})
    counted = fake_guard().anthropic(plain).messages.count_tokens(model="m", messages=ASKED["messages"])
    assert counted.input_tokens == 14


@pytest.mark.parametrize("other", [object(), anthropic.Anthropic, None])
def test_another_object_is_a_clear_error(other: Any) -> None:
    with pytest.raises(UsageError, match="Anthropic or AsyncAnthropic"):
        fake_guard().anthropic(other)
