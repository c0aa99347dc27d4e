"""Upstreams that misbehave: no text is lost, and an error comes behind what is clean."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

import anyio
import openai
import pytest
from openai import APIError, OpenAI
from starlette.responses import JSONResponse, Response

from guardrail import Policy
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    TOXIC,
    Upstream,
    chat_answer,
    completion,
    delta,
    encoded,
    fake_guard,
    post,
    proxy,
    streaming,
    text_delta,
    usage_chunk,
)
from tests.integrations.server.test_completions import ask
from tests.integrations.server.test_streams import (
    DONE,
    TEXT,
    content,
    fragment,
    heard_until_error,
    pieces,
    reasons,
    stream,
)

TOLD = fake_guard().check(TEXT).text
THOUGHT = "First I look at the sky, you idiot"
MENDED_THOUGHT = "First I look at the sky, you person"


def reason(value: Any, **fields: Any) -> dict[str, Any]:
    """A chunk whose reason is anything at all."""
    chunk = delta(**fields)
    chunk["choices"][0]["finish_reason"] = value
    return chunk


def told(chunk: dict[str, Any], value: Any) -> dict[str, Any]:
    """The chunk with this reason."""
    return chunk | {"choices": [choice | {"finish_reason": value} for choice in chunk["choices"]]}


# ---- reasons


@pytest.mark.parametrize("value", ["", "null", False, "generating", 0, {}, "stop", "STOP", "eos_token"])
def test_a_reason_in_every_chunk_loses_nothing(client: OpenAI, upstream: Upstream, value: Any) -> None:
    upstream.says(*[told(delta(piece), value) for piece in pieces(TEXT)], delta(reason="length"), DONE)
    chunks = stream(client)
    assert content(chunks) == TOLD
    assert reasons(chunks) == {0: "length"}


@pytest.mark.parametrize("value", ["", "null", False, "stop"])
def test_arguments_of_tools_are_whole_whatever_reason_comes_with_them(
    client: OpenAI, upstream: Upstream, value: Any
) -> None:
    parts = ['{"a":', ' "b', 'c"}']
    upstream.says(
        told(delta(tool_calls=[fragment("", index=0, name="look_up")]), value),
        *[told(delta(tool_calls=[fragment(part, index=0)]), value) for part in parts],
        delta(reason="tool_calls"),
        DONE,
    )
    chunks = stream(client)
    (calls,) = [c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls]
    assert calls is not None
    assert [call.function and call.function.arguments for call in calls] == ['{"a": "bc"}']
    assert reasons(chunks) == {0: "tool_calls"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("eos_token", "stop"),
        ("end_turn", "stop"),
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("tool_use", "tool_calls"),
        ("safety", "content_filter"),
        ("FinishReason.MAX_TOKENS", "length"),
        (" tool-calls ", "tool_calls"),
        ("a reason of its own", "stop"),
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_reasons_of_other_names_get_openais(
    client: OpenAI, upstream: Upstream, value: str, expected: str, streamed: bool
) -> None:
    if streamed:
        upstream.says(delta(TOXIC), reason(value), DONE)
        chunks = stream(client)
        assert (content(chunks), reasons(chunks)) == (MENDED, {0: expected})
    else:
        choice = {"index": 0, "message": {"content": TOXIC}, "finish_reason": value}
        upstream.reply = lambda asked: JSONResponse(chat_answer([choice]))
        (found,) = ask(client).choices
        assert (found.message.content, found.finish_reason) == (MENDED, expected)


@pytest.mark.parametrize("value", [None, "", "null", False, "still going"])
def test_without_done_only_a_known_reason_is_an_end(client: OpenAI, upstream: Upstream, value: Any) -> None:
    upstream.says(delta(f"{CLEAN} And"), reason(value))
    seen, error = heard_until_error(client)
    assert (seen, error.code) == (f"{CLEAN} And", "upstream_disconnected")
    upstream.says(delta(f"{CLEAN} And"), reason("eos"))
    assert content(stream(client)) == f"{CLEAN} And"


def test_usage_behind_the_reason_is_kept(client: OpenAI, upstream: Upstream) -> None:
    late = delta("") | {"usage": {"total_tokens": "9", "prompt_tokens": 4}}
    upstream.says(delta(CLEAN), delta(reason="stop"), late, DONE)
    *_, last = stream(client)
    assert last.usage is not None
    assert (last.usage.total_tokens, last.usage.prompt_tokens) == (9, 4)


# ---- events

HARMLESS: list[Any] = [
    "{}",
    "null",
    "true",
    "7",
    '{"choices": null}',
    '{"choices": []}',
    '{"choices": [null]}',
    '{"type": "ping"}',
    '{"usage": {"total_tokens": 1}}',
    '{"usage": null, "choices": []}',
    '{"error": null}',
    b"event: ping\ndata: {}\n\n",
    b'event: ping\r\ndata: {"type": "ping"}\r\n\r\n',
    b": keep-alive\n\n",
    b": keep-alive\r\r",
    b"id: 7\nretry: 10\n\n",
    b"data\n\n",
    b"data:\n\n",
    '{"choices": [{}]}',
    '{"choices": [{"delta": null}]}',
    '{"choices": [{"delta": {"role": "assistant"}}]}',
    '{"choices": [{"delta": {"content": null, "tool_calls": null, "function_call": null}}]}',
    '{"choices": [{"delta": {"content": []}}]}',
    '{"choices": [{"delta": {"content": [null]}}]}',
    '{"choices": [{"delta": {"content": false, "refusal": false, "tool_calls": [null]}}]}',
    '{"choices": [{"index": null, "delta": {"content": ""}}]}',
    '{"choices": [{"index": "0", "delta": {}}]}',
    '{"choices": [{"index": 0.0, "delta": {}}]}',
    '{"object": null, "id": 3, "created": "soon", "model": null, "choices": [{"delta": {}}]}',
    '{"choices": [{"delta": []}]}',
    '{"choices": [{"delta": ""}]}',
    '{"choices": [{"delta": {"content": {}, "refusal": {}, "tool_calls": {}, "function_call": []}}]}',
    '{"choices": [{"delta": {"content": "", "function_call": ""}}]}',
    '{"error": {"code": 0, "message": ""}}',
    '{"usage": [], "choices": []}',
]


@pytest.mark.parametrize("odd", HARMLESS)
def test_a_harmless_event_anywhere_changes_nothing(client: OpenAI, upstream: Upstream, odd: Any) -> None:
    told = [event for piece in pieces(TEXT) for event in (delta(piece), odd)]
    upstream.says(odd, *told, delta(reason="stop"), odd, DONE)
    chunks = stream(client)
    assert content(chunks) == TOLD
    assert reasons(chunks) == {0: "stop"}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


@pytest.mark.parametrize("index", [None, "0", 0.0])
def test_an_index_that_is_no_number_is_read(client: OpenAI, upstream: Upstream, index: Any) -> None:
    chunks = [delta(piece) for piece in pieces(TEXT)]
    for chunk in chunks:
        chunk["choices"][0]["index"] = index
        del chunk["object"]
    upstream.says(*chunks, reason("stop"), DONE)
    heard = stream(client)
    assert content(heard) == TOLD
    assert {choice.index for chunk in heard for choice in chunk.choices} == {0}


def test_choices_without_indexes_in_one_event_are_told_apart_by_their_places(
    client: OpenAI, upstream: Upstream
) -> None:
    both = [{"delta": {"content": f"{CLEAN} "}}, {"delta": {"content": f"{TOXIC} "}}]
    upstream.says({"choices": both}, {"choices": [{"delta": {}, "finish_reason": "stop"}] * 2}, DONE)
    chunks = stream(client, n=2)
    assert (content(chunks), content(chunks, 1)) == (f"{CLEAN} ", f"{MENDED} ")
    answer = [{"message": {"content": CLEAN}}, {"index": None, "message": {"content": TOXIC}}]
    upstream.reply = lambda asked: JSONResponse({"choices": answer})
    assert [(c.index, c.message.content) for c in ask(client).choices] == [(0, CLEAN), (1, MENDED)]


@pytest.mark.parametrize("field", ["message", "text"])
def test_text_that_stands_in_place_of_a_delta_is_read(client: OpenAI, upstream: Upstream, field: str) -> None:
    for reply in (TOXIC, CLEAN):
        said = reply if field == "text" else {"role": "assistant", "content": reply}
        upstream.says({"choices": [{field: said, "finish_reason": "stop"}]}, DONE)
        assert content(stream(client)) == fake_guard().check(reply).text
        choice = {"text" if field == "text" else "delta": said}
        upstream.reply = lambda asked, choice=choice: JSONResponse({"choices": [choice]})  # type: ignore[misc]
        assert ask(client).choices[0].message.content == fake_guard().check(reply).text


def test_a_message_behind_deltas_does_not_repeat_them(client: OpenAI, upstream: Upstream) -> None:
    whole = {"role": "assistant", "content": TEXT}
    last = {"choices": [{"index": 0, "message": whole, "finish_reason": "stop"}]}
    upstream.says(*map(delta, pieces(TEXT)), last, DONE)
    assert content(stream(client)) == TOLD


@pytest.mark.parametrize("ids", [{}, {"id": ""}, {"id": None}])
def test_calls_without_index_or_id_are_told_apart_by_their_names(
    client: OpenAI, upstream: Upstream, ids: dict[str, Any]
) -> None:
    first, second = [ids | {"function": {"name": name, "arguments": '{"a":'}} for name in ("f", "g")]
    rest = ids | {"function": {"arguments": "1}"}}
    upstream.says(*[delta(tool_calls=calls) for calls in ([first], [rest], [second, rest])], DONE)
    (calls,) = [c.choices[0].delta.tool_calls for c in stream(client) if c.choices[0].delta.tool_calls]
    assert calls is not None
    functions = [call.function for call in calls if call.function]
    assert [(one.name, one.arguments) for one in functions] == [("f", '{"a":1}'), ("g", '{"a":1}')]


def test_bytes_that_are_not_utf8_cost_their_own_character_alone(client: OpenAI, upstream: Upstream) -> None:
    cut = encoded(delta("smile |"))
    upstream.says(delta(f"{TOXIC} A "), cut.replace(b"|", b"\xf0\x9f"), delta(" idiot.", reason="stop"), DONE)
    assert content(stream(client)) == f"{MENDED} A smile \ufffd person."


def test_an_event_may_be_as_long_as_an_answer(client: OpenAI, upstream: Upstream) -> None:
    text = "x" * 1_100_000
    upstream.says(delta(tool_calls=[fragment(f'{{"a": "{text}"}}', index=0, name="f")]), DONE)
    (calls,) = [c.choices[0].delta.tool_calls for c in stream(client) if c.choices[0].delta.tool_calls]
    assert calls is not None
    assert calls[0].function is not None
    assert calls[0].function.arguments == f'{{"a": "{text}"}}'


@pytest.mark.parametrize("status", [201, 202, 203])
def test_an_answer_under_another_good_status_is_read(client: OpenAI, upstream: Upstream, status: int) -> None:
    choice = {"index": 0, "message": {"content": TOXIC}, "finish_reason": "stop"}
    upstream.reply = lambda asked: JSONResponse(chat_answer([choice]), status_code=status)
    assert ask(client).choices[0].message.content == MENDED


@pytest.mark.parametrize("odd", ["1e999", '{"a": ' * 600 + "1" + "}" * 600, "NaN"])
@pytest.mark.parametrize("path", ["chat/completions", "embeddings"])
def test_numbers_and_nesting_that_json_cannot_repeat_are_an_unreadable_answer(
    url: str, upstream: Upstream, path: str, odd: str
) -> None:
    body = f'{{"choices": [{{"message": {{"content": "Hi."}}}}], "usage": {odd}, "data": {odd}}}'
    upstream.reply = lambda asked: Response(body, media_type="application/json")
    answer = post(f"{url}/v1/{path}", json={"model": "m", "messages": [], "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_malformed")


def test_line_breaks_a_byte_order_mark_and_what_follows_done_do_not_matter(
    client: OpenAI, upstream: Upstream
) -> None:
    body = b"".join(
        encoded(event) for event in (delta(TOXIC), delta(reason="stop"), DONE, delta("late"), "x")
    )
    for line_break in (b"\n", b"\r\n", b"\r"):
        upstream.says(b"\xef\xbb\xbf" + body.replace(b"\n", line_break))
        assert content(stream(client)) == MENDED


@pytest.mark.parametrize("done", ["[DONE]", " [DONE] ", '"[DONE]"', "[done]"])
def test_done_is_known_in_every_spelling(client: OpenAI, upstream: Upstream, done: str) -> None:
    upstream.says(delta(TOXIC), done)
    assert content(stream(client)) == MENDED


def test_a_stream_of_which_nothing_was_understood_is_no_empty_answer(
    client: OpenAI, upstream: Upstream
) -> None:
    upstream.says('{"content": "You idiot."}', DONE)
    with pytest.raises(APIError) as caught:
        stream(client)
    assert caught.value.code == "upstream_malformed"


BAD: list[Any] = [
    "no JSON",
    "[1]",
    '"idiot"',
    '{"choices": 3}',
    '{"choices": ["idiot"]}',
    '{"choices": [{"index": -1, "delta": {}}]}',
    '{"choices": [{"index": "one", "delta": {}}]}',
    '{"choices": [{"delta": {"content": {"idiot": 1}}}]}',
    '{"choices": [{"delta": {"content": ["idiot"]}}]}',
    b"data: \xff\xfe idiot\n\n",
    '{"choices": [], "usage": {"total_tokens": 1e999}}',
    '{"choices": [], "usage": ' + '{"a": ' * 600 + "1" + "}" * 600 + "}",
    '{"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": {"a": -1e999}}}]}}]}',
    '{"choices": [{"delta": {"content": [{"type": "text", "text": "idiot", "n": 1e999}]}}]}',
    '{"error": {"message": "Overloaded."}}',
    '{"error": "Overloaded."}',
    '{"object": "error", "message": "Overloaded.", "code": 500}',
    b'event: error\ndata: {"type": "error", "error": {"message": "Overloaded."}}\n\n',
]


@pytest.mark.parametrize("bad", BAD)
def test_what_is_clean_arrives_before_the_error(client: OpenAI, upstream: Upstream, bad: Any) -> None:
    upstream.says(delta(f"{TOXIC} {CLEAN} And then"), bad, delta("idiot"), DONE)
    seen, error = heard_until_error(client)
    assert seen == f"{MENDED} {CLEAN} And then"
    assert "idiot" not in str(error)
    assert error.code == "upstream_malformed" or "Overloaded." in error.message


def test_every_choice_gets_what_is_clean_before_the_error_and_only_one_that_is_over_its_end(
    client: OpenAI, upstream: Upstream
) -> None:
    call = [fragment('{"a": 1}', index=0, name="f")]
    good: Any = {"index": 3, "delta": {"content": "Four"}}
    odd: Any = {"index": 0, "delta": {"content": 1.5}}
    upstream.says(
        delta("One", tool_calls=call),
        delta("Two", index=1, tool_calls=call),
        delta("Three", index=2),
        delta(index=1, reason="tool_calls"),
        {"choices": [odd, good]},
        DONE,
    )
    heard: list[Any] = []
    answer = client.chat.completions.create(model="m", messages=[], stream=True, n=4)
    with pytest.raises(APIError, match="cannot be read"):
        heard.extend(iter(answer))  # takes up what comes before the error
    assert [content(heard, i) for i in range(4)] == ["One", "Two", "Three", "Four"]
    assert reasons(heard) == {1: "tool_calls"}
    calls = [(c.index, c.delta.tool_calls) for chunk in heard for c in chunk.choices if c.delta.tool_calls]
    assert [index for index, _ in calls] == [1]


def test_text_beside_an_error_arrives_before_it(client: OpenAI, upstream: Upstream) -> None:
    upstream.says(delta(CLEAN), told(delta(f" {TOXIC}"), "error") | {"error": {"message": "Overloaded."}})
    seen, error = heard_until_error(client)
    assert (seen, error.message) == (f"{CLEAN} {MENDED}", "Overloaded.")


def test_an_error_under_a_good_status_is_told(client: OpenAI, upstream: Upstream) -> None:
    for message, told_ in (("Overloaded.", "Overloaded."), (TOXIC, "withheld")):
        for body in ({"error": {"message": message}}, {"object": "error", "message": message}):
            upstream.reply = lambda asked, body=body: JSONResponse(body)  # type: ignore[misc]
            with pytest.raises(openai.InternalServerError, match=told_) as caught:
                ask(client)
            assert caught.value.status_code == 502
            assert "idiot" not in str(caught.value)


def test_an_answer_beyond_the_limit_is_cut_behind_what_is_clean(upstream: Upstream) -> None:
    upstream.says(*[delta(f"{CLEAN} ")] * 3, delta("x" * 5000), DONE)
    with (
        proxy(upstream, max_answer=4000) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
    ):
        seen, error = heard_until_error(client)
    assert seen == f"{CLEAN} " * 3
    assert error.code == "upstream_malformed"


def test_a_stream_that_takes_too_long_ends_behind_what_is_clean(upstream: Upstream) -> None:
    async def slow() -> Any:
        yield encoded(delta(f"{CLEAN} And then idiot"))
        await anyio.sleep_forever()

    upstream.reply = lambda asked: streaming(slow())
    with (
        proxy(upstream, max_seconds=1.0) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
    ):
        seen, error = heard_until_error(client)
    assert (seen, error.code) == (f"{CLEAN} And then person", "timeout")


def test_a_choice_that_nobody_asked_for_does_not_hold_the_stream_open(upstream: Upstream) -> None:
    upstream.says(delta(f"{CLEAN} ", index=1), delta(f"{TOXIC} "), delta(index=1, reason="stop"), DONE)
    with (
        proxy(upstream, guard=fake_guard(Policy(ladder=("block",)))) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        chunks = stream(client)
    assert reasons(chunks) == {0: "content_filter", 1: "stop"}


# ---- tools


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([{"city": "Oslo"}], '{"city":"Oslo"}'),
        ([{}, '{"city": ', '"Oslo"}'], '{"city": "Oslo"}'),
        ([{}], "{}"),
        ([None, "{}"], "{}"),
        ([["Oslo"]], '["Oslo"]'),
    ],
)
def test_arguments_that_are_json_themselves_become_the_string_that_clients_read(
    client: OpenAI, upstream: Upstream, given: list[Any], expected: str
) -> None:
    fragments = [{"index": "0", "function": {"arguments": part}} for part in given]
    fragments[0] |= {"id": "call_0", "function": {"name": "f", "arguments": given[0]}}
    upstream.says(*[delta(tool_calls=[part]) for part in fragments], delta(reason="tool_calls"), DONE)
    (calls,) = [c.choices[0].delta.tool_calls for c in stream(client) if c.choices[0].delta.tool_calls]
    assert calls is not None
    assert [call.function and call.function.arguments for call in calls] == [expected]
    if len(given) == 1:
        whole = {"id": "call_0", "function": {"name": "f", "arguments": given[0]}}
        upstream.reply = lambda asked: completion([None], tool_calls=[None, whole])
        (call,) = ask(client).choices[0].message.to_dict()["tool_calls"]  # type: ignore[misc]
        assert call["function"]["arguments"] == expected


def test_toxic_arguments_that_are_json_themselves_are_blocked(client: OpenAI, upstream: Upstream) -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": {"note": "what an idiot"}}}
    upstream.says(delta(tool_calls=[call]), delta(reason="tool_calls"), DONE)
    assert reasons(stream(client)) == {0: "content_filter"}


# ---- parts


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def thinking(text: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [text_part(text)]}


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0KGgoAAA" * 40}}
PARTS: list[dict[str, Any]] = [
    thinking(THOUGHT),
    text_part(f"{CLEAN} {TOXIC}"),
    PICTURE,
    {"type": "reference", "reference_ids": [1, 2]},
    {"type": "output_text", "text": TOXIC, "annotations": [], "id": "msg_1"},
]
MENDED_PARTS: list[dict[str, Any]] = [
    thinking(MENDED_THOUGHT),
    text_part(f"{CLEAN} {MENDED}"),
    *PARTS[2:4],
    PARTS[4] | {"text": MENDED},
]


def test_content_in_parts_keeps_its_shape_and_its_texts_are_moderated(
    client: OpenAI, upstream: Upstream
) -> None:
    upstream.reply = lambda asked: completion([PARTS])  # type: ignore[list-item]
    assert ask(client).choices[0].message.content == MENDED_PARTS


def joined_parts(chunks: Sequence[Any]) -> list[dict[str, Any]]:
    """The parts of a stream with fragments of one text put together, as clients do it."""
    found: list[dict[str, Any]] = []
    for chunk in chunks:
        for part in chunk.choices[0].delta.content or []:
            last = found[-1] if found else {}
            if part["type"] == "thinking" == last.get("type"):
                last["thinking"][0]["text"] += part["thinking"][0]["text"]
            elif "text" in part and part["type"] == last.get("type"):
                last["text"] += part["text"]
            else:
                found.append(json.loads(json.dumps(part)))
    return found


def cut_part(part: dict[str, Any]) -> list[dict[str, Any]]:
    if part["type"] == "thinking":
        return [thinking(piece) for piece in pieces(part["thinking"][0]["text"])]
    return [part | {"text": piece} for piece in pieces(part["text"])] if "text" in part else [part]


def test_streamed_parts_keep_order_and_shape(client: OpenAI, upstream: Upstream) -> None:
    deltas = [delta(content=[piece]) for part in PARTS for piece in cut_part(part)]
    upstream.says(delta(role="assistant"), *deltas, delta(reason="stop"), DONE)
    chunks = stream(client)
    assert joined_parts(chunks) == MENDED_PARTS
    assert reasons(chunks) == {0: "stop"}


def test_a_word_that_is_cut_between_two_parts_does_not_pass(client: OpenAI, upstream: Upstream) -> None:
    for halves in (
        [text_part("You are such an id"), text_part("iot")],
        [text_part("You are such an id"), PARTS[3], text_part("iot")],
        [{"type": "other", "own": "You are such an id"}, {"type": "other", "own": "iot"}],
    ):
        upstream.says(*[delta(content=[half]) for half in halves], delta(reason="stop"), DONE)
        shown = "".join(str(c.choices[0].delta.content or "") for c in stream(client))
        assert "id" not in shown or "iot" not in shown
        upstream.reply = lambda asked, halves=halves: completion([halves])  # type: ignore[misc]
        assert "'iot'" not in str(ask(client).choices[0].message.content)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "idiot", "text": CLEAN},
        {"type": "image_url", "image_url": {"url": "https://example.org/you_are_an_idiot"}},
        {"type": "reference", "id": "what an idiot"},
        {"an idiot": 1},
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_what_is_toxic_in_a_part_and_is_no_text_ends_the_choice(
    client: OpenAI, upstream: Upstream, part: dict[str, Any], streamed: bool
) -> None:
    if streamed:
        upstream.says(delta(CLEAN), delta(content=[part]), delta("more"), delta(reason="stop"), DONE)
        chunks = stream(client)
        told = "".join(chunk.to_json() for chunk in chunks)
        assert (content(chunks), reasons(chunks)) == (CLEAN, {0: "content_filter"})
    else:
        upstream.reply = lambda asked: completion([[text_part(CLEAN), part]])  # type: ignore[list-item]
        (choice,) = ask(client).choices
        told = choice.to_json()
        assert choice.finish_reason == "content_filter"
    assert "idiot" not in told


@pytest.mark.parametrize("block", ["segment", "whole"])
def test_behind_a_blocked_part_nothing_is_shown(upstream: Upstream, block: Any) -> None:
    policy = Policy(ladder=("block",), block=block)
    upstream.reply = lambda asked: completion([[text_part(f"{CLEAN} {TOXIC}"), text_part(CLEAN), PICTURE]])  # type: ignore[list-item]
    with (
        proxy(upstream, guard=fake_guard(policy)) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        (choice,) = ask(client).choices
    prefix = f"{CLEAN} " if block == "segment" else ""
    assert choice.message.content == [text_part(prefix + policy.refusal)]
    assert choice.finish_reason == "content_filter"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("word", ["person", "\\u0069diot"])
def test_json_that_was_asked_for_is_judged_in_parts_too(
    client: OpenAI, upstream: Upstream, streamed: bool, word: str
) -> None:
    document = f'{{"note": "what a {word} he is"}}'
    shape: Any = {"type": "json_object"}
    if streamed:
        upstream.says(*[delta(content=[text_part(p)]) for p in pieces(document)], delta(reason="stop"), DONE)
        chunks = stream(client, response_format=shape)
        shown: Any = next(c.choices[0].delta.content for c in chunks if c.choices[0].delta.content)
    else:
        upstream.reply = lambda asked: completion([[text_part(document)]])  # type: ignore[list-item]
        shown = ask(client, response_format=shape).choices[0].message.content
    assert shown == ([text_part(document)] if word == "person" else Policy().refusal)


# ---- order


def fields_in_order(chunks: Sequence[Any]) -> list[tuple[str, str]]:
    """Each run of one field's text."""
    found: list[tuple[str, str]] = []
    for chunk in chunks:
        for name, text in chunk.choices[0].delta.to_dict().items() if chunk.choices else ():
            if name != "role" and isinstance(text, str) and text:
                if found and found[-1][0] == name:
                    text = found.pop()[1] + text
                found.append((name, text))
    return found


@pytest.fixture
def allowing(upstream: Upstream) -> Any:
    """A client of a proxy that lets reasoning through."""
    with (
        proxy(upstream, allowed_fields=("reasoning_content", "reasoning")) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        yield client


def test_reasoning_comes_before_the_content_that_it_came_before(allowing: OpenAI, upstream: Upstream) -> None:
    upstream.says(
        delta("", role="assistant"),
        *[delta(reasoning_content=piece, content=None) for piece in pieces(THOUGHT)],
        *[delta(piece, reasoning_content=None) for piece in pieces(TEXT)],
        delta(reason="stop"),
        DONE,
    )
    chunks = stream(allowing)
    assert fields_in_order(chunks) == [("reasoning_content", MENDED_THOUGHT), ("content", TOLD)]


def test_fields_that_take_turns_keep_their_turns_and_words_cut_by_a_turn_do_not_pass(
    allowing: OpenAI, upstream: Upstream
) -> None:
    turns = [
        ("reasoning_content", "I think that you are an id"),
        ("content", f"{CLEAN} Also"),
        ("refusal", "No."),
    ]
    upstream.says(
        *[delta(**{name: piece}) for name, text in turns for piece in pieces(text)],
        delta(reasoning_content="iot, they say."),
        delta(" this."),
        delta(reason="stop"),
        DONE,
    )
    *first, (name, text), last = fields_in_order(stream(allowing))
    assert first == turns
    assert name == "reasoning_content"
    assert "iot" not in text
    assert last == ("content", " this.")


def test_fields_that_come_together_do_not_cut_each_others_words(allowing: OpenAI, upstream: Upstream) -> None:
    text = "You are no idiotic person at all, they say. And so on."
    deltas = [delta(reasoning_content=piece, reasoning=piece) for piece in text]
    upstream.says(*deltas, delta(CLEAN), delta(reason="stop"), DONE)
    chunks = stream(allowing)
    for field in ("reasoning_content", "reasoning"):
        assert "".join(str(c.choices[0].delta.to_dict().get(field, "")) for c in chunks) == text
    assert fields_in_order(chunks)[-1] == ("content", CLEAN)


def test_reasoning_in_parts_is_moderated_like_content(allowing: OpenAI, upstream: Upstream) -> None:
    part = {"type": "reasoning.text", "text": TOXIC, "index": 0}
    upstream.reply = lambda asked: completion([CLEAN], reasoning=[part])
    assert ask(allowing).choices[0].message.to_dict()["reasoning"] == [part | {"text": MENDED}]
    upstream.says(delta(reasoning=[part]), delta(CLEAN), delta(reason="stop"), DONE)
    shown = [c.choices[0].delta.to_dict() for c in stream(allowing)]
    assert [s["reasoning"] for s in shown if "reasoning" in s] == [[part | {"text": MENDED}]]


# ---- errors

PAGE = "<!DOCTYPE html>\n<html><head><title>{}</title></head><body>idiot</body></html>"


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("status", [403, 429, 502, 503])
def test_a_page_of_html_keeps_status_and_headers_and_tells_its_title(
    client: OpenAI, upstream: Upstream, status: int, streamed: bool
) -> None:
    headers = {"retry-after": "7", "content-type": "text/html"}
    for title, told in (
        ("Bad &amp; worse", "HTML: Bad & worse"),
        ("idiot", "page of HTML"),
        ("", "page of HTML"),
    ):
        upstream.reply = lambda asked, title=title: Response(PAGE.format(title), status, headers)  # type: ignore[misc]
        with pytest.raises(openai.APIStatusError) as caught:
            stream(client) if streamed else ask(client)
        assert caught.value.status_code == status
        assert caught.value.response.headers["retry-after"] == "7"
        assert told in caught.value.message
        assert "idiot" not in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        {"error": "Busy now."},
        {"error": {"message": "Busy now."}},
        {"error": {"message": {"text": 3, "detail": "Busy now."}}},
        {"message": "Busy now.", "type": "x", "object": "error"},
        {"detail": "Busy now."},
        {"detail": [{"loc": ["body"], "msg": "Busy now."}]},
        {"errors": [{"message": "Busy now."}]},
        {"msg": "Busy now."},
        [{"error": {"code": 429, "message": "Busy now."}}],
        "Busy now.",
    ],
)
def test_errors_of_every_shape_keep_status_and_message(client: OpenAI, upstream: Upstream, body: Any) -> None:
    for told, shown in (
        (body, "Busy now."),
        (json.loads(json.dumps(body).replace("Busy now", TOXIC)), "withheld"),
    ):
        packed = gzip.compress(json.dumps(told).encode())
        for content_, headers in ((json.dumps(told).encode(), {}), (packed, {"content-encoding": "gzip"})):
            upstream.reply = lambda asked, c=content_, h=headers: Response(c, 429, h)  # type: ignore[misc]
            with pytest.raises(openai.RateLimitError) as caught:
                ask(client)
            assert shown in caught.value.message
            assert "idiot" not in str(caught.value)


@pytest.mark.parametrize(
    ("content_", "told"),
    [
        (b"", "429 Too Many Requests; no message came with it"),
        (b"no healthy upstream", "no healthy upstream"),
        (b"\x1f\x8b\x00\x00", "withheld"),
        (b"x" * 100_000, "withheld"),
        (b"[" * 50_000, "withheld"),
        (b'{"error":' * 900 + b"1" + b"}" * 900, "withheld"),
    ],
)
def test_other_bodies_of_errors_keep_the_status(
    client: OpenAI, upstream: Upstream, content_: bytes, told: str
) -> None:
    upstream.reply = lambda asked: Response(content_, 429)
    with pytest.raises(openai.RateLimitError, match="upstream") as caught:
        ask(client)
    assert told in caught.value.message


def test_an_error_that_is_packed_wrongly_keeps_its_status(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: Response(b"not packed", 503, {"content-encoding": "gzip"})
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.status_code == 503


def test_a_page_in_place_of_an_answer_is_named(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: Response(PAGE.format("Login"), 200, {"content-type": "text/html"})
    with pytest.raises(openai.InternalServerError, match="page of HTML") as caught:
        ask(client)
    assert caught.value.code == "upstream_malformed"


# ---- numbers


def test_numbers_that_are_written_as_strings_are_read(client: OpenAI, upstream: Upstream) -> None:
    usage = {"total_tokens": "12", "prompt_tokens": 5, "note": "12 idiots", "cost": "0.25"}
    choice = {"index": "0", "message": {"content": 42}, "finish_reason": "stop"}
    upstream.reply = lambda asked: JSONResponse(
        {"created": "1700000000", "choices": [choice], "usage": usage}
    )
    answer = ask(client)
    assert (answer.created, answer.choices[0].message.content) == (1700000000, "42")
    assert answer.usage is not None
    assert answer.usage.to_dict() == {"total_tokens": 12, "prompt_tokens": 5, "note": None, "cost": 0.25}


def test_text_completions_are_read_as_liberally(client: OpenAI, upstream: Upstream) -> None:
    chunks = [text_delta(piece) for piece in pieces(TEXT)]
    for chunk in chunks:
        chunk["choices"][0] |= {"finish_reason": "", "index": "0"}
    upstream.says("{}", *chunks, usage_chunk(), text_delta("", reason="length"), DONE)
    heard = list(client.completions.create(model="m", prompt="x", stream=True))
    assert "".join(chunk.choices[0].text for chunk in heard if chunk.choices) == TOLD
