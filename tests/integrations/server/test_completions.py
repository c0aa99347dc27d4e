"""Whole answers: the real client gets what the guard would have said, and nothing that was not read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion
from starlette.responses import JSONResponse, Response

from guardrail import Policy
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    TOXIC,
    Upstream,
    chat_answer,
    completion,
    fake_guard,
    proxy,
)

QUESTION: Any = [{"role": "user", "content": "Tell me about the bus."}]


def ask(client: OpenAI, **options: Any) -> ChatCompletion:
    answer = client.chat.completions.create(model="small-1", messages=QUESTION, **options)
    assert isinstance(answer, ChatCompletion)
    return answer


def tool_call(arguments: str, name: str = "look_up") -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_clean_answers_arrive_as_they_were_said(client: OpenAI) -> None:
    answer = ask(client)
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (CLEAN, "stop")
    assert choice.message.role == "assistant"
    assert (answer.id, answer.model, answer.created) == ("chatcmpl-1", "small-1", 1700000000)
    assert answer.object == "chat.completion"


def test_usage_is_kept(client: OpenAI, upstream: Upstream) -> None:
    details = {"reasoning_tokens": 3, "note": "text"}
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "completion_tokens_details": details,
    }
    upstream.reply = lambda asked: JSONResponse(chat_answer([], usage=usage))
    answer = ask(client)
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 3
    assert "text" not in answer.usage.to_json()


def test_every_choice_is_moderated(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([TOXIC, CLEAN, TOXIC])
    answer = ask(client, n=3)
    assert [choice.message.content for choice in answer.choices] == [MENDED, CLEAN, MENDED]
    assert [choice.index for choice in answer.choices] == [0, 1, 2]


def test_a_blocked_choice_ends_with_content_filter_and_the_others_stand(upstream: Upstream) -> None:
    policy = Policy(ladder=("block",))
    upstream.reply = lambda asked: completion([f"{CLEAN} {TOXIC} {CLEAN}", CLEAN])
    with (
        proxy(upstream, guard=fake_guard(policy)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        blocked, passed = ask(client).choices
    assert blocked.message.content == f"{CLEAN} {policy.refusal}"
    assert (blocked.finish_reason, passed.finish_reason) == ("content_filter", "stop")
    assert passed.message.content == CLEAN


@pytest.mark.parametrize("block", ["whole", "raise"])
def test_other_ways_to_block_end_with_content_filter_too(upstream: Upstream, block: Any) -> None:
    policy = Policy(ladder=("block",), block=block)
    upstream.reply = lambda asked: completion([f"{CLEAN} {TOXIC}"])
    with (
        proxy(upstream, guard=fake_guard(policy)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        (choice,) = ask(client).choices
    assert choice.finish_reason == "content_filter"
    prefix = "" if block == "whole" else f"{CLEAN} "
    assert choice.message.content == prefix + policy.refusal


def test_the_asynchronous_client_gets_the_same(url: str, upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([TOXIC])

    async def ask_later() -> str | None:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
            answer = await client.chat.completions.create(model="small-1", messages=QUESTION)
            return answer.choices[0].message.content

    assert asyncio.run(ask_later()) == MENDED


def test_text_completions_are_moderated(client: OpenAI, upstream: Upstream) -> None:
    choices = [{"index": 0, "text": TOXIC, "finish_reason": "length", "logprobs": {"tokens": [TOXIC]}}]
    upstream.reply = lambda asked: JSONResponse(chat_answer(choices))
    answer = client.completions.create(model="small-1", prompt="The bus")
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (MENDED, "length")
    assert answer.choices[0].logprobs is None
    assert answer.object == "text_completion"
    assert upstream.asked[0].path == "/v1/completions"


def test_clean_calls_of_tools_arrive_byte_for_byte(client: OpenAI, upstream: Upstream) -> None:
    arguments = '{"city":  "K\\u00f6ln", "days": 3}'
    upstream.reply = lambda asked: completion([None], tool_calls=[tool_call(arguments)])
    message = ask(client).choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "look_up", arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"note": "what an idiot"}',
        '{"note": "what an \\u0069diot"}',
        '{"idiot": 1}',
        '{"note": "what an idiot", "note": "fine"}',
        '{"body": "{\\"note\\": \\"what an \\\\u0069diot\\"}"}',
        "no JSON, idiot",
    ],
)
def test_toxic_arguments_block_the_choice_and_are_never_rewritten(
    client: OpenAI, upstream: Upstream, arguments: str
) -> None:
    upstream.reply = lambda asked: completion(
        [CLEAN], tool_calls=[tool_call('{"x": 1}'), tool_call(arguments)]
    )
    (choice,) = ask(client).choices
    assert choice.finish_reason == "content_filter"
    assert choice.message.tool_calls is None
    assert choice.message.content == CLEAN


def test_a_toxic_name_of_a_tool_and_a_toxic_old_function_call_block_too(
    client: OpenAI, upstream: Upstream
) -> None:
    for fields in (
        {"tool_calls": [tool_call("{}", name="idiot")]},
        {"function_call": {"name": "f", "arguments": '"idiot"'}},
        {"tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f", "input": "idiot"}}]},
    ):
        upstream.reply = lambda asked, fields=fields: completion([None], **fields)  # type: ignore[misc]
        (choice,) = ask(client).choices
        assert choice.finish_reason == "content_filter"
        assert "idiot" not in choice.to_json()


def test_custom_tools_and_old_function_calls_pass(client: OpenAI, upstream: Upstream) -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "sunny"}}
    function = {"name": "g", "arguments": "{}"}
    upstream.reply = lambda asked: completion([None], tool_calls=[custom], function_call=function)
    message = ask(client).choices[0].message.to_dict()
    assert message["tool_calls"] == [custom]
    assert message["function_call"] == function


def test_a_refusal_is_moderated_like_content(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([None], refusal=TOXIC)
    assert ask(client).choices[0].message.refusal == MENDED


def test_what_the_proxy_does_not_know_is_dropped(client: OpenAI, upstream: Upstream) -> None:
    secret = f"hidden {TOXIC}"
    message = {
        "role": secret,
        "content": CLEAN,
        "reasoning_content": secret,
        "annotations": [{"type": "url_citation", "url_citation": {"title": secret}}],
        "audio": {"transcript": secret},
        "score": 3,
    }
    choice = {
        "index": 0,
        "message": message,
        "finish_reason": secret,
        "logprobs": {"content": [{"token": secret}]},
    }
    rest = {
        "id": secret,
        "model": secret,
        "system_fingerprint": secret,
        "service_tier": "default",
        "note": secret,
    }
    upstream.reply = lambda asked: JSONResponse(chat_answer([choice], **rest))
    answer = ask(client, logprobs=True)
    assert "hidden" not in answer.to_json()
    assert answer.choices[0].logprobs is None
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.to_dict().keys() <= {"role", "content", "refusal"}
    assert answer.service_tier == "default"


def test_allowed_fields_pass_moderated_if_they_are_text_or_numbers(upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([CLEAN], reasoning_content=TOXIC, score=3, notes=[TOXIC])
    with (
        proxy(upstream, allowed_fields=("reasoning_content", "score", "notes")) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        message = ask(client).choices[0].message.to_dict()
    assert message["reasoning_content"] == MENDED
    assert message["score"] == 3
    assert "notes" not in message


def test_lone_surrogates_survive(client: OpenAI, upstream: Upstream) -> None:
    text = "Half a pair, \ud800, stands in this clean text."
    body = chat_answer([{"index": 0, "message": {"content": text}, "finish_reason": "stop"}])
    upstream.reply = lambda asked: Response(json.dumps(body), media_type="application/json")
    raw = client.chat.completions.with_raw_response.create(model="m", messages=QUESTION)
    assert json.loads(raw.content)["choices"][0]["message"]["content"] == text


def test_the_question_goes_upstream_as_it_was_asked(client: OpenAI, upstream: Upstream) -> None:
    ask(client, temperature=0.5, extra_body={"own": [1, TOXIC]})
    (asked,) = upstream.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {"model": "small-1", "messages": QUESTION, "temperature": 0.5, "own": [1, TOXIC]}
