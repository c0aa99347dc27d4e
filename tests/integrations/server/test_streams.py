"""Streamed answers: nothing leaves before it was judged, and all of it adds up to the whole answer."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, OpenAI
from openai.types.chat import ChatCompletionChunk
from starlette.responses import Response

from guardrail import Guard, Policy
from guardrail.errors import ManifestError
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    TOXIC,
    Asked,
    Upstream,
    completion,
    delta,
    encoded,
    events,
    fake_guard,
    proxy,
    streaming,
    text_delta,
    usage_chunk,
)
from tests.integrations.server.test_completions import QUESTION, ask
from tests.waiting import PATIENCE

TEXT = f"{CLEAN} {TOXIC}\n\n- {TOXIC} {CLEAN} And an idiot without an end"
DONE = "[DONE]"


def stream(client: OpenAI, **options: Any) -> list[ChatCompletionChunk]:
    return list(client.chat.completions.create(model="small-1", messages=QUESTION, stream=True, **options))


def content(chunks: Sequence[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def reasons(chunks: Sequence[ChatCompletionChunk]) -> dict[int, str]:
    every = [(choice.index, choice.finish_reason) for chunk in chunks for choice in chunk.choices]
    return {index: reason for index, reason in every if reason is not None}


def pieces(text: str, *, seed: int = 0) -> list[str]:
    """The text cut at random places."""
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(1, len(text)), min(12, len(text) - 1)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_adds_up_to_what_the_guard_says_of_the_whole(
    client: OpenAI, upstream: Upstream, seed: int
) -> None:
    upstream.says(
        delta("", role="assistant"), *map(delta, pieces(TEXT, seed=seed)), delta(reason="stop"), DONE
    )
    chunks = stream(client)
    assert content(chunks) == fake_guard().check(TEXT).text
    assert reasons(chunks) == {0: "stop"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk.id, chunk.model) for chunk in chunks} == {("chatcmpl-1", "small-1")}


def test_a_sentence_arrives_while_the_upstream_is_still_talking(client: OpenAI, upstream: Upstream) -> None:
    async def reply(asked: Asked) -> Response:
        heard = asyncio.Event()
        release.append((asyncio.get_running_loop(), heard))

        async def body() -> AsyncIterator[bytes]:
            yield encoded(delta(f"{CLEAN} ")) + encoded(delta("Th"))
            await heard.wait()
            yield encoded(delta("e end.")) + encoded(delta(reason="stop")) + encoded(DONE)

        return streaming(body())

    release: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
    upstream.reply = reply
    seen = ""
    for chunk in client.chat.completions.create(model="m", messages=QUESTION, stream=True):
        seen += chunk.choices[0].delta.content or ""
        if seen == CLEAN and release:
            loop, heard = release.pop()
            loop.call_soon_threadsafe(heard.set)
    assert seen == f"{CLEAN} The end."


def test_interleaved_choices_do_not_mix(client: OpenAI, upstream: Upstream) -> None:
    texts = [f"Choice {i}. {TEXT} Number {i} ends here." for i in range(4)]
    queues = {i: pieces(text, seed=i) for i, text in enumerate(texts)}
    turns = [i for i, queue in queues.items() for _ in queue]
    random.Random(1).shuffle(turns)
    chunks = [delta(queues[i].pop(0), index=i) for i in turns]
    upstream.says(*chunks, *(delta(index=i, reason="stop") for i in range(4)), DONE)
    heard = stream(client, n=4)
    assert [content(heard, i) for i in range(4)] == [fake_guard().check(text).text for text in texts]
    assert reasons(heard) == dict.fromkeys(range(4), "stop")


def test_the_usage_report_comes_last(client: OpenAI, upstream: Upstream) -> None:
    upstream.says(delta(TOXIC), delta(reason="stop"), usage_chunk(), DONE)
    chunks = stream(client, stream_options={"include_usage": True})
    assert content(chunks) == MENDED
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12


def test_usage_beside_the_end_of_a_choice_stays_beside_it(client: OpenAI, upstream: Upstream) -> None:
    upstream.says(delta(TOXIC), delta(reason="stop") | {"usage": {"total_tokens": 9}}, DONE)
    *_, last = stream(client)
    assert last.choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.total_tokens == 9


def test_the_usage_of_a_blocked_choice_is_kept(upstream: Upstream) -> None:
    ending = delta(index=0, reason="stop") | {"usage": {"total_tokens": 9}}
    upstream.says(delta(f"{TOXIC} "), *[delta(f"{CLEAN} ")] * 50, ending, delta(CLEAN, index=1), DONE)
    with (
        proxy(upstream, guard=fake_guard(Policy(ladder=("block",)))) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        chunks = stream(client, n=2, stream_options={"include_usage": True})
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [9]
    assert reasons(chunks) == {0: "content_filter"}


def test_a_blocked_choice_ends_at_once_and_the_others_go_on(upstream: Upstream) -> None:
    policy = Policy(ladder=("block",))
    upstream.says(
        delta(f"{CLEAN} {TOXIC} {CLEAN}", index=0),
        *(delta(f"{CLEAN} ", index=1) for _ in range(3)),
        delta(f"{CLEAN} ", index=0, tool_calls=[fragment("{}", index=0)]),
        delta(index=0, reason="stop"),
        delta(index=1, reason="stop"),
        usage_chunk(),
        DONE,
    )
    with proxy(upstream, guard=fake_guard(policy)) as url, OpenAI(base_url=f"{url}/v1", api_key="k") as c:
        chunks = stream(c, n=2, stream_options={"include_usage": True})
    assert content(chunks) == f"{CLEAN} {policy.refusal}"
    assert content(chunks, 1) == f"{CLEAN} " * 3
    assert reasons(chunks) == {0: "content_filter", 1: "stop"}
    assert not any(choice.delta.tool_calls for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].usage is not None


async def endless(text: str, left: threading.Event) -> AsyncIterator[bytes]:
    """An answer that goes on until nobody listens any more."""
    try:
        while True:
            yield encoded(delta(text))
            await anyio.sleep(0)
    finally:
        left.set()


def test_an_upstream_is_left_once_all_choices_are_blocked(upstream: Upstream) -> None:
    left = threading.Event()
    upstream.reply = lambda asked: streaming(endless(f"{TOXIC} ", left))
    with (
        proxy(upstream, guard=fake_guard(Policy(ladder=("block",)))) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        chunks = stream(client)
    assert reasons(chunks) == {0: "content_filter"}
    assert left.wait(PATIENCE)


def fragment(arguments: str, *, index: int, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    head = {"id": f"call_{index}", "type": "function"} if name else {}
    return {"index": index, "function": function} | head


def test_arguments_of_tools_are_held_until_they_are_whole(client: OpenAI, upstream: Upstream) -> None:
    whole = ['{"city": "Oslo"}', '{"city": "Köln"}']
    upstream.says(
        delta("Let me look. "),
        *(delta(tool_calls=[fragment("", index=i, name="look_up")]) for i in range(2)),
        *(delta(tool_calls=[fragment(part, index=i)]) for i in range(2) for part in pieces(whole[i])),
        delta(reason="tool_calls"),
        DONE,
    )
    chunks = stream(client)
    (calls,) = [c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls]
    assert calls is not None
    assert [call.function.arguments for call in calls if call.function] == whole
    assert [(call.index, call.id, call.type) for call in calls] == [
        (0, "call_0", "function"),
        (1, "call_1", "function"),
    ]
    assert content(chunks) == "Let me look. "
    assert reasons(chunks) == {0: "tool_calls"}


def test_calls_without_an_index_are_told_apart_by_their_ids(client: OpenAI, upstream: Upstream) -> None:
    calls = [fragment("{}", index=i, name=f"tool_{i}") for i in range(3)]
    for call in calls:
        del call["index"]
    rest = {"function": {"arguments": " "}}
    upstream.says(
        delta(tool_calls=calls[:1]),
        delta(tool_calls=calls[1:]),
        delta(tool_calls=[rest]),
        delta(reason="stop"),
        DONE,
    )
    (heard,) = [c.choices[0].delta.tool_calls for c in stream(client) if c.choices[0].delta.tool_calls]
    assert heard is not None
    told = [(call.index, call.id, call.function and call.function.arguments) for call in heard]
    assert told == [(0, "call_0", "{}"), (1, "call_1", "{}"), (2, "call_2", "{} ")]


def test_toxic_arguments_end_the_choice_and_none_of_them_arrives(client: OpenAI, upstream: Upstream) -> None:
    upstream.says(
        delta(f"{CLEAN} "),
        delta(tool_calls=[fragment('{"fine": "', index=0, name="look_up")]),
        delta(tool_calls=[fragment("what an \\u0069d", index=0)]),
        delta(tool_calls=[fragment('iot"}', index=0)]),
        delta(reason="tool_calls"),
        DONE,
    )
    chunks = stream(client)
    assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)
    assert content(chunks) == f"{CLEAN} "
    assert reasons(chunks) == {0: "content_filter"}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("word", ["person", "\\u0069diot"])
def test_json_that_was_asked_for_is_judged_as_it_decodes_and_never_rewritten(
    upstream: Upstream, client: OpenAI, streamed: bool, word: str
) -> None:
    document = f'{{"note": "what a {word} he is"}}'
    shape: Any = {"type": "json_object"}
    if streamed:
        upstream.says(*map(delta, pieces(document)), delta(reason="stop"), DONE)
        chunks = stream(client, response_format=shape)
        text, reason = content(chunks), reasons(chunks)[0]
    else:
        upstream.reply = lambda asked: completion([document])
        choice = ask(client, response_format=shape).choices[0]
        text, reason = choice.message.content or "", choice.finish_reason
    expected = (document, "stop") if word == "person" else (Policy().refusal, "content_filter")
    assert (text, reason) == expected


def test_text_completions_are_streamed_too(client: OpenAI, upstream: Upstream) -> None:
    upstream.says(*map(text_delta, pieces(TEXT)), text_delta("", reason="length"), DONE)
    chunks = list(client.completions.create(model="m", prompt="x", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == fake_guard().check(TEXT).text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_other_fields_of_deltas_are_dropped_unless_they_are_allowed(
    upstream: Upstream, client: OpenAI
) -> None:
    thoughts = [delta(reasoning_content=part, score=2, notes=[TOXIC]) for part in pieces(TOXIC)]
    logs = delta("", reason="stop")
    logs["choices"][0]["logprobs"] = {"content": [{"token": "idiot"}]}
    upstream.says(*thoughts, delta(CLEAN), logs, DONE)
    assert "idiot" not in "".join(chunk.to_json() for chunk in stream(client))
    assert not any("reasoning_content" in chunk.to_json() for chunk in stream(client))
    with (
        proxy(upstream, allowed_fields=("reasoning_content", "score")) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as allowing,
    ):
        deltas = [chunk.choices[0].delta.to_dict() for chunk in stream(allowing)]
    assert "".join(str(d.get("reasoning_content", "")) for d in deltas) == MENDED
    assert any(d.get("score") == 2 for d in deltas)
    assert not any("notes" in d for d in deltas)


def heard_until_error(client: OpenAI) -> tuple[str, APIError]:
    """What a client got before the error, and the error."""
    seen = ""
    try:
        for chunk in client.chat.completions.create(model="m", messages=QUESTION, stream=True):
            seen += chunk.choices[0].delta.content or ""
    except APIError as error:
        return seen, error
    raise AssertionError("the stream ended as if it were whole")


@pytest.mark.parametrize(
    ("ending", "rest"), [([], ""), ([b'data: {"choi'], ""), ([delta("dle, idiot")], "dle, person")]
)
def test_an_upstream_that_ends_in_the_middle_is_an_error_behind_what_is_clean(
    client: OpenAI, upstream: Upstream, ending: list[Any], rest: str
) -> None:
    upstream.says(delta(f"{CLEAN} This ends in the mid"), *ending)
    seen, error = heard_until_error(client)
    assert error.code in ("upstream_disconnected", "upstream_malformed")
    assert seen == f"{CLEAN} This ends in the mid{rest}"


def test_an_upstream_that_dies_in_the_middle_is_an_error_too(client: OpenAI, upstream: Upstream) -> None:
    async def dying() -> AsyncIterator[bytes]:
        yield encoded(delta(f"{CLEAN} ")) + encoded(delta("Never shown, idiot"))
        raise ConnectionAbortedError

    upstream.reply = lambda asked: streaming(dying())
    seen, error = heard_until_error(client)
    assert error.code == "upstream_disconnected"
    assert seen == f"{CLEAN} Never shown, person"


@pytest.mark.parametrize(
    "bad",
    [
        "no JSON",
        "[1]",
        '{"choices": 3}',
        '{"choices": [{"index": -1, "delta": {}}]}',
        '{"choices": [{"index": true, "delta": {}}]}',
        '{"choices": [{"index": 0, "delta": {"content": ["idiot"]}}]}',
        '{"choices": [{"index": 0, "delta": {"content": NaN}}]}',
        '{"choices": [{"index": 0, "delta": {"tool_calls": [3]}}]}',
        b"data: \xff\xfe idiot\n\n",
        '{"choices": [{"index": 0, "delta": "idiot"}]}',
    ],
)
def test_what_cannot_be_read_never_passes(client: OpenAI, upstream: Upstream, bad: Any) -> None:
    upstream.says(delta("Hello"), bad, delta(reason="stop"), DONE)
    with pytest.raises(APIError) as caught:
        stream(client)
    assert caught.value.code == "upstream_malformed"
    assert "idiot" not in str(caught.value)


def test_comments_and_other_fields_of_events_are_dropped(client: OpenAI, upstream: Upstream) -> None:
    noise = b": idiot\nevent: idiot\nid: idiot\nretry: 3\n\ndata:\n\n"
    upstream.says(noise, delta(CLEAN), noise, delta(reason="stop"), DONE, delta("late idiot"))
    raw = client.chat.completions.with_raw_response.create(model="m", messages=QUESTION, stream=True)
    body = raw.http_response.read().decode()
    assert "idiot" not in body
    assert body.endswith("data: [DONE]\n\n")
    assert all(line.startswith("data: ") for line in body.split("\n") if line)


def test_an_error_event_of_the_upstream_is_told_without_its_text(client: OpenAI, upstream: Upstream) -> None:
    for message, told in (("Overloaded.", "Overloaded."), (TOXIC, "withheld")):
        upstream.says(delta(CLEAN), {"error": {"message": message, "type": "server_error", "code": "busy"}})
        with pytest.raises(APIError) as caught:
            stream(client)
        assert told in caught.value.message
        assert caught.value.code == "busy"


def test_a_careless_upstream_without_reason_or_done_still_gets_its_tail_through(
    client: OpenAI, upstream: Upstream
) -> None:
    upstream.says(delta(TOXIC), DONE)
    assert content(stream(client)) == MENDED
    upstream.says(delta(TOXIC), delta(reason="stop"))
    assert content(stream(client)) == MENDED


def test_a_policy_that_withholds_whole_texts_refuses_streams(upstream: Upstream) -> None:
    guard = fake_guard(Policy(block="whole"))
    with (
        proxy(upstream, guard=guard) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
        pytest.raises(BadRequestError, match="without stream"),
    ):
        stream(client)
    assert upstream.asked == []


def test_a_guard_that_breaks_ends_the_stream_with_an_error(upstream: Upstream) -> None:
    def broken(texts: Sequence[str]) -> Any:
        raise ManifestError("model.onnx was altered")

    upstream.says(delta(f"{CLEAN} "), delta(reason="stop"), DONE)
    with (
        proxy(upstream, guard=fake_guard(detector=broken)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
        pytest.raises(APIError) as caught,
    ):
        stream(client)
    assert caught.value.code == "guard_unavailable"


def test_a_guard_that_breaks_over_an_error_of_the_upstream_is_told_apart(upstream: Upstream) -> None:
    def broken(texts: Sequence[str]) -> Any:
        raise ManifestError("model.onnx was altered")

    upstream.says(delta(), {"error": {"message": TOXIC}})
    with (
        proxy(upstream, guard=fake_guard(detector=broken)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
        pytest.raises(APIError) as caught,
    ):
        stream(client)
    assert caught.value.code == "guard_unavailable"


def test_200_streams_at_a_time_do_not_mix(url: str, upstream: Upstream) -> None:
    def reply(asked: Asked) -> Response:
        name = asked.body["messages"][0]["content"]
        text = f"This is number {name} of many. {TOXIC} Again number {name} speaks."
        return events([*map(delta, pieces(text, seed=int(name))), delta(reason="stop"), DONE])

    upstream.reply = reply

    async def one(client: AsyncOpenAI, name: str) -> str:
        message: Any = [{"role": "user", "content": name}]
        answer = await client.chat.completions.create(model="m", messages=message, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

    async def everyone() -> list[str]:
        # On a slow machine 200 connections take longer to open than one may: the client asks again.
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k", timeout=PATIENCE, max_retries=20) as client:
            return await asyncio.gather(*(one(client, str(i)) for i in range(200)))

    heard = asyncio.run(everyone())
    assert heard == [f"This is number {i} of many. {MENDED} Again number {i} speaks." for i in range(200)]


def test_a_client_that_leaves_ends_the_call_upstream(client: OpenAI, upstream: Upstream) -> None:
    left = threading.Event()
    upstream.reply = lambda asked: streaming(endless(f"{CLEAN} ", left))
    answer = client.chat.completions.create(model="m", messages=QUESTION, stream=True)
    next(iter(answer))
    answer.close()
    assert left.wait(PATIENCE)


def test_the_guards_hook_hears_of_streams(upstream: Upstream) -> None:
    heard: list[Any] = []
    fakes = fake_guard()
    guard = Guard(policy=fakes.policy, on_outcome=heard.append, **fakes._parts)
    upstream.says(delta(TOXIC), delta(reason="stop"), DONE)
    with proxy(upstream, guard=guard) as url, OpenAI(base_url=f"{url}/v1", api_key="k") as client:
        stream(client)
    assert [str(outcome.action) for outcome in heard] == ["rewritten"]
