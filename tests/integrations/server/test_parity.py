"""The same texts through every way into the server get what the guard says of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from openai import OpenAI
from starlette.responses import JSONResponse

from guardrail import Policy
from tests.integrations.server.running import (
    CLEAN,
    TOXIC,
    Upstream,
    chat_answer,
    completion,
    delta,
    events,
    fake_guard,
    post,
    proxy,
    text_delta,
)
from tests.integrations.server.test_completions import ask
from tests.integrations.server.test_streams import DONE, content, pieces, stream

POLICIES = (Policy(), Policy(ladder=("mask", "block")), Policy(ladder=("block",)), Policy(threshold=0.95))
TEXTS = (
    CLEAN,
    f"{CLEAN} {TOXIC} {CLEAN}",
    f"- {TOXIC}\n- {CLEAN}\n\n> {TOXIC}\n```\nidiot = 1\n```\nWhat an idiot",
    "You idiot. You. Moron! https://idiot.example/moron 3 km",
    "Grüße 😀 an den idiot, " * 40,
    " \n ",
)
Way = Callable[[str, Upstream, OpenAI, str], str]


def chat(text: str, upstream: Upstream, client: OpenAI, url: str) -> str:
    upstream.reply = lambda asked: completion([text])
    return ask(client).choices[0].message.content or ""


def chat_stream(text: str, upstream: Upstream, client: OpenAI, url: str) -> str:
    upstream.reply = lambda asked: events([*map(delta, pieces(text)), delta(reason="stop"), DONE])
    return content(stream(client))


def refusal_stream(text: str, upstream: Upstream, client: OpenAI, url: str) -> str:
    chunks = [delta(refusal=part) for part in pieces(text)]
    upstream.reply = lambda asked: events([*chunks, delta(reason="stop"), DONE])
    return "".join(chunk.choices[0].delta.refusal or "" for chunk in stream(client) if chunk.choices)


def text_completion(text: str, upstream: Upstream, client: OpenAI, url: str) -> str:
    choice = {"index": 0, "text": text, "finish_reason": "stop"}
    upstream.reply = lambda asked: JSONResponse(chat_answer([choice]))
    return client.completions.create(model="m", prompt="x").choices[0].text


def text_stream(text: str, upstream: Upstream, client: OpenAI, url: str) -> str:
    upstream.reply = lambda asked: events(
        [*map(text_delta, pieces(text)), text_delta("", reason="stop"), DONE]
    )
    chunks = client.completions.create(model="m", prompt="x", stream=True)
    return "".join(chunk.choices[0].text for chunk in chunks)


def detoxify(text: str, upstream: Upstream, client: OpenAI, url: str) -> str:
    answer = post(f"{url}/v1/detoxify", json={"input": text}).json()
    return str(answer["outcomes"][0]["text"])


WAYS: tuple[Way, ...] = (chat, chat_stream, refusal_stream, text_completion, text_stream, detoxify)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.ladder[0]}-{policy.threshold}")
def test_every_way_in_gives_what_the_guard_gives(upstream: Upstream, policy: Policy) -> None:
    expected = [fake_guard(policy).check(text).text for text in TEXTS]
    with (
        proxy(upstream, guard=fake_guard(policy)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
    ):
        for way in WAYS:
            assert [way(text, upstream, client, url) for text in TEXTS] == expected, way.__name__
