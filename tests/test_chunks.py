"""Functions that give chunks of any kind: text, objects with text in them, in both ways of iterating."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, ConfigDict

from guardrail import Guard, Outcome, Policy
from guardrail.errors import BlockedError, UsageError
from tests.bus import BLOCK, CLEAN, MENDED, NEUTRAL, REFUSAL, TEXT, TOXIC, guard


def cut(text: str, size: int = 7) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def chunk(delta: dict[str, Any] | None = None, *, index: int = 0, **fields: Any) -> ChatCompletionChunk:
    reason = fields.pop("reason", None)
    choice = {"index": index, "delta": delta or {}, "finish_reason": reason}
    envelope = {"id": "chatcmpl-1", "created": 1, "model": "small-1", "object": "chat.completion.chunk"}
    return ChatCompletionChunk.model_validate(envelope | {"choices": [choice]} | fields)


def answer(text: str = TEXT, reason: str = "stop") -> list[ChatCompletionChunk]:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": piece}) for piece in cut(text)),
        chunk(reason=reason),
        chunk(choices=[], usage=usage),
    ]


class TwoWay:
    """Can be read by ``for`` and by ``async for``, as LiteLLM's streams can."""

    def __init__(self, chunks: list[Any]) -> None:
        self._chunks = iter(chunks)
        self.closed = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._chunks)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        for found in self._chunks:
            return found
        raise StopAsyncIteration

    def close(self) -> None:
        self.closed = True


class OnlyIterable:
    def __init__(self, chunks: list[Any]) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[Any]:
        yield from self._chunks


class OnlyAsyncIterable:
    def __init__(self, chunks: list[Any]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[Any]:
        for found in self._chunks:
            yield found


async def gathered(chunks: Any) -> list[Any]:
    return [found async for found in chunks]


def ways(chunks: list[Any]) -> dict[str, Any]:
    """Every kind of function that gives these chunks, moderated or not by what is given."""

    def generator() -> Iterator[Any]:
        yield from chunks

    async def async_generator() -> AsyncIterator[Any]:
        for found in chunks:
            yield found

    async def awaited() -> Any:
        return async_generator()

    async def awaited_two() -> Any:
        return TwoWay(chunks)

    return {
        "generator": generator,
        "iterator": lambda: iter(chunks),
        "iterable": lambda: OnlyIterable(chunks),
        "two ways, plain": lambda: TwoWay(chunks),
        "async generator": async_generator,
        "async iterable": lambda: OnlyAsyncIterable(chunks),
        "two ways, async": lambda: TwoWay(chunks),
        "awaitable of a plain function": lambda: awaited(),
        "coroutine": awaited,
        "coroutine of two ways": awaited_two,
    }


WAYS = tuple(ways([]))


def run(way: str, chunks: list[Any], careful: Guard) -> list[Any]:
    """What comes out of one kind of function, wrapped."""
    wrapped = careful.wrap(ways(chunks)[way])

    async def asynchronous() -> list[Any]:
        result = wrapped()
        return await gathered(await result if "coroutine" in way or "awaitable" in way else result)

    if way.startswith("async") or way.endswith("async") or "coroutine" in way or "awaitable" in way:
        return asyncio.run(asynchronous())
    return list(wrapped())


def content(chunks: list[Any], name: str = "content", index: int = 0) -> str:
    return "".join(
        getattr(choice.delta, name, None) or ""
        for found in chunks
        for choice in found.choices
        if choice.index == index
    )


def reasons(chunks: list[Any]) -> list[str]:
    return [choice.finish_reason for found in chunks for choice in found.choices if choice.finish_reason]


@pytest.mark.parametrize("way", WAYS)
def test_text_is_moderated_in_every_way_of_giving_it(way: str) -> None:
    assert "".join(run(way, cut(TEXT), guard())) == MENDED


@pytest.mark.parametrize("way", WAYS)
def test_chunks_of_a_chat_completion_are_moderated_in_every_way_of_giving_them(way: str) -> None:
    shown = run(way, answer(), guard())
    assert content(shown) == MENDED
    assert {type(found) for found in shown} == {ChatCompletionChunk}
    assert shown[0].choices[0].delta.role == "assistant"
    assert [bool(found.choices[0].delta.role) for found in shown if found.choices].count(True) == 1
    assert reasons(shown) == ["stop"]
    assert shown[-1].usage.total_tokens == 3
    assert len(shown) > 4  # it is a stream, not one piece


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_stream_is_empty(way: str) -> None:
    assert run(way, [], guard()) == []


def test_a_clean_answer_keeps_every_field() -> None:
    (shown,) = run("generator", [chunk({"content": CLEAN}, system_fingerprint="fp_44709d6fcb")], guard())
    assert shown.system_fingerprint == "fp_44709d6fcb"
    assert content([shown]) == CLEAN


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_the_text_is_the_same_however_it_is_cut(at: list[int]) -> None:
    places = [0, *sorted(at), len(TEXT)]
    pieces = [TEXT[start:end] for start, end in pairwise(places)]
    assert content(run("generator", [chunk({"content": piece}) for piece in pieces], guard())) == MENDED


def test_words_go_out_before_the_stream_is_over() -> None:
    pulled: list[int] = []

    def source() -> Iterator[ChatCompletionChunk]:
        for number, found in enumerate(answer()):
            pulled.append(number)
            yield found

    chunks = guard().wrap(source)()
    while not content([next(chunks)]):
        pass
    assert pulled[-1] < len(answer()) - 4


def test_choices_and_kinds_of_text_do_not_mix() -> None:
    pieces = cut(TEXT)
    mixed = [
        found
        for piece in pieces
        for found in (chunk({"content": piece}), chunk({"content": piece.upper()}, index=1))
    ]
    shown = run("generator", [*mixed, chunk(reason="stop"), chunk(reason="stop", index=1)], guard())
    assert content(shown) == MENDED
    assert "IDIOT" not in content(shown, index=1)
    assert len(reasons(shown)) == 2


def test_several_choices_in_one_chunk_come_apart() -> None:
    both = chunk({"content": TOXIC})
    both = both.model_copy(
        update={"choices": [both.choices[0], chunk({"content": CLEAN}, index=1).choices[0]]}
    )
    shown = run("generator", [both], guard())
    assert (content(shown), content(shown, index=1)) == (NEUTRAL, CLEAN)


def test_reasoning_is_moderated_and_stays_before_the_answer() -> None:
    thought = [chunk({"reasoning_content": piece}) for piece in cut(TOXIC)]
    shown = run("generator", [*thought, *answer(CLEAN)], guard())
    assert content(shown, "reasoning_content") == NEUTRAL
    names = [name for found in shown for name in ("reasoning_content", "content") if content([found], name)]
    assert names == sorted(names, reverse=True)
    assert content(shown) == CLEAN


def fragments(arguments: str) -> list[ChatCompletionChunk]:
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "search", "arguments": ""}}
    rest = [{"index": 0, "function": {"arguments": piece}} for piece in cut(arguments, 5)]
    calls = [chunk({"tool_calls": [found]}) for found in (first, *rest)]
    return [chunk({"role": "assistant", "content": None}), *calls, chunk(reason="tool_calls")]


def arguments(chunks: list[Any]) -> str:
    calls = [call for found in chunks for call in found.choices[0].delta.tool_calls or ()]
    return "".join(call.function.arguments for call in calls)


def test_clean_calls_of_tools_come_as_they_were() -> None:
    called = json.dumps({"query": CLEAN, "id": "cus_NffrFeUfNV2Hib"})
    shown = run("generator", fragments(called), guard())
    assert arguments(shown) == called
    assert shown[1].choices[0].delta.tool_calls[0].id == "call_1"
    assert reasons(shown) == ["tool_calls"]


@pytest.mark.parametrize("query", [TOXIC, "\\u0069diot"])
def test_flagged_calls_of_tools_are_dropped_for_the_refusal(query: str) -> None:
    shown = run("generator", fragments(f'{{"query": "{query}"}}'), guard())
    assert arguments(shown) == ""
    assert content(shown) == REFUSAL
    assert reasons(shown) == ["content_filter"]


def test_nothing_follows_a_refusal() -> None:
    shown = run("generator", answer(), guard(BLOCK))
    assert content(shown) == f"{CLEAN} {REFUSAL}"
    assert reasons(shown) == ["content_filter"]
    assert shown[-1].usage is not None


def test_what_was_released_comes_before_the_error() -> None:
    shown: list[Any] = []
    chunks: Any = guard(Policy(ladder=("block",), block="raise")).wrap(lambda: iter(answer()))()
    with pytest.raises(BlockedError) as caught:
        shown.extend(chunks)
    assert content(shown) == caught.value.outcome.text == CLEAN


def test_a_flagged_call_raises_in_place_of_the_end_where_the_policy_says_so() -> None:
    shown: list[Any] = []
    chunks: Any = guard(Policy(block="raise")).wrap(lambda: iter(fragments(f'{{"query": "{TOXIC}"}}')))()
    with pytest.raises(BlockedError):
        shown.extend(chunks)
    assert reasons(shown) == []
    assert arguments(shown) == ""


def test_a_flagged_id_or_model_stops_the_stream() -> None:
    with pytest.raises(BlockedError):
        run("generator", [chunk({"content": CLEAN}, model="idiot-1")], guard())


def test_log_probabilities_never_go_out() -> None:
    found = chunk({"content": CLEAN}).model_dump()
    found["choices"][0]["logprobs"] = {"content": [{"token": "idiot", "logprob": 0.0, "top_logprobs": []}]}
    (shown,) = run("generator", [found], guard())
    assert shown["choices"][0]["logprobs"] is None
    assert shown["choices"][0]["delta"]["content"] == CLEAN


def test_chunks_that_are_dicts_stay_dicts() -> None:
    shown = run("generator", [found.model_dump() for found in answer()], guard())
    assert all(type(found) is dict for found in shown)
    assert "".join(c["delta"]["content"] or "" for f in shown for c in f["choices"]) == MENDED


def test_chunks_of_a_text_completion_are_moderated() -> None:
    def piece(text: str, reason: str | None = None) -> Completion:
        choice = {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}
        fields = {"id": "cmpl-1", "created": 1, "model": "m", "object": "text_completion"}
        return Completion.model_construct(**fields, choices=[_choice(choice)])

    shown = run("generator", [*(piece(text) for text in cut(TEXT)), piece("", "stop")], guard())
    assert "".join(found.choices[0].text for found in shown) == MENDED
    assert shown[-1].choices[0].finish_reason == "stop"


def _choice(fields: dict[str, Any]) -> Any:
    from openai.types import CompletionChoice

    return CompletionChoice.model_construct(**fields)


@pytest.mark.parametrize("reason", ["", "null", False, None])
def test_what_is_no_reason_ends_no_choice(reason: Any) -> None:
    chunks = [found.model_dump() for found in answer()]
    for found in chunks[1:-2]:
        found["choices"][0]["finish_reason"] = reason
    shown = run("generator", chunks, guard())
    assert "".join(c["delta"]["content"] or "" for f in shown for c in f["choices"]) == MENDED


class Block(BaseModel):
    block_type: str = "text"
    text: str


class Message(BaseModel):
    role: str = "assistant"
    additional_kwargs: dict[str, Any] = {}
    blocks: list[Block]


class Response(BaseModel):
    """As LlamaIndex gives it: what is new beside all that was said so far."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    message: Message
    raw: Any = None
    delta: str | None = None


class TextResponse(BaseModel):
    text: str
    additional_kwargs: dict[str, Any] = {}
    raw: Any = None
    delta: str | None = None


def so_far(text: str, *, deltas: bool = True, **last: Any) -> list[Response]:
    pieces = cut(text)
    said = ["".join(pieces[: end + 1]) for end in range(len(pieces))]
    chunks = [
        Response(message=Message(blocks=[Block(text=whole)]), delta=new if deltas else None, raw={"t": new})
        for new, whole in zip(pieces, said, strict=True)
    ]
    chunks[-1].message.additional_kwargs = last
    return chunks


@pytest.mark.parametrize("deltas", [True, False])
@pytest.mark.parametrize("way", ["generator", "async generator", "coroutine"])
def test_chunks_with_the_text_so_far_are_moderated(way: str, deltas: bool) -> None:
    shown = run(way, so_far(TEXT, deltas=deltas, finish="stop"), guard())
    assert "".join(found.delta for found in shown) == MENDED
    texts = [found.message.blocks[0].text for found in shown]
    assert texts[-1] == MENDED
    assert all(MENDED.startswith(text) for text in texts)
    assert len(texts) > 2
    assert shown[-1].message.additional_kwargs == {"finish": "stop"}
    assert all(found.raw is None for found in shown)
    assert "idiot" not in repr(shown)


def test_text_responses_with_the_text_so_far_are_moderated() -> None:
    pieces = cut(TEXT)
    chunks = [TextResponse(text="".join(pieces[: n + 1]), delta=new) for n, new in enumerate(pieces)]
    shown = run("generator", chunks, guard())
    assert [shown[-1].text, "".join(found.delta for found in shown)] == [MENDED, MENDED]


def test_a_refusal_ends_the_text_so_far() -> None:
    shown = run("generator", so_far(TEXT, tool_calls=["x"]), guard(BLOCK))
    assert shown[-1].message.blocks[0].text == f"{CLEAN} {REFUSAL}"
    assert shown[-1].message.additional_kwargs == {}


# Text so far without anything beside it


@pytest.mark.parametrize("size", [1, 3, 7, 40])
@pytest.mark.parametrize("way", WAYS)
def test_chunks_of_str_that_repeat_the_text_so_far_are_refused(way: str, size: int) -> None:
    pieces = cut(TEXT, size)
    chunks = ["".join(pieces[: end + 1]) for end in range(len(pieces))]
    with pytest.raises(UsageError, match="starts with the one before"):
        run(way, chunks, guard())


def test_a_cursor_behind_the_text_so_far_hides_no_repetition() -> None:
    pieces = cut(TEXT)
    chunks = [f"{''.join(pieces[: end + 1])}▌" for end in range(len(pieces))]
    with pytest.raises(UsageError, match="starts with the one before"):
        run("generator", chunks, guard())


def test_chunk_objects_that_repeat_the_text_so_far_are_refused() -> None:
    pieces = cut(TEXT)
    chunks = [chunk({"content": "".join(pieces[: end + 1])}) for end in range(len(pieces))]
    with pytest.raises(UsageError, match="starts with the one before"):
        run("generator", chunks, guard())


def test_a_repeated_chunk_among_those_that_repeat_the_text_so_far_changes_nothing() -> None:
    pieces = cut(TEXT, 3)
    chunks = ["".join(pieces[: end + 1]) for end in range(len(pieces)) for _ in range(2)]
    with pytest.raises(UsageError, match="starts with the one before"):
        run("generator", chunks, guard())


@pytest.mark.parametrize(
    "chunks",
    [["ha", "haha", "hahaha!"], ["1", "10", "100"], [" ", "  ", "   ", CLEAN], [CLEAN] * 3, ["", CLEAN]],
)
def test_chunks_that_repeat_by_chance_are_text(chunks: list[str]) -> None:
    assert "".join(run("generator", chunks, guard())) == "".join(chunks)


# What is no stream


def test_chunks_of_another_kind_are_a_clear_error() -> None:
    for source in ([b"bytes"], [3], [{"event": "x"}], [CLEAN, 3]):
        with pytest.raises(TypeError, match="expected chunks of str"):
            run("generator", source, guard())
    with pytest.raises(TypeError, match="one shape"):
        run("generator", [chunk({"content": CLEAN}), CLEAN], guard())


def test_values_that_can_be_iterated_are_values() -> None:
    assert guard().wrap(lambda: (TOXIC,))() == (NEUTRAL,)
    assert guard().wrap(lambda: {"a": 1})() == {"a": 1}
    assert guard().wrap(lambda: TextResponse(text=CLEAN))().text == CLEAN
    assert guard().wrap(lambda: range(3))() == range(3)


def completion_pieces(text: str) -> list[dict[str, Any]]:
    return [{"choices": [{"index": 0, "finish_reason": None, "text": piece}]} for piece in cut(text)]


@pytest.mark.parametrize("held", [list, tuple, lambda chunks: {"stream": [chunks]}])
@pytest.mark.parametrize(
    "make",
    [
        answer,
        completion_pieces,
        lambda text: [piece.model_dump() for piece in answer(text)],
        lambda text: fragments(json.dumps({"query": text})),
        lambda text: [{"type": "response.output_text.delta", "delta": piece} for piece in cut(text)],
        lambda text: [{"index": 0, "delta": {"type": "text_delta", "text": piece}} for piece in cut(text)],
    ],
)
def test_chunks_that_were_gathered_are_read_as_what_they_spell(make: Any, held: Any) -> None:
    clean = held(make(CLEAN))
    assert guard().moderate(clean) is clean
    with pytest.raises(BlockedError):
        guard().wrap(lambda: held(make(TEXT)))()


def test_chunks_without_choices_pass_and_end_no_stream() -> None:
    source = [piece.model_dump() for piece in answer()]
    others: list[Any] = [{}, {"choices": None, "usage": {"total_tokens": 1}}, {"type": "ping"}]
    for other in others:
        shown = run("generator", [*source[:3], other, *source[3:]], guard())
        assert other in shown
        assert [piece for piece in shown if piece is not other] == run("generator", source, guard())


@pytest.mark.parametrize(
    "other", [None, {"delta": "an id"}, {"text": "an id"}, {"message": {"content": "a"}}]
)
def test_chunks_of_another_shape_among_others_are_an_error_and_no_end(other: Any) -> None:
    source = [piece.model_dump() for piece in answer()]
    with pytest.raises(TypeError, match="one shape"):
        run("generator", [*source[:3], other, *source[3:]], guard())


def test_leaving_a_stream_of_objects_ends_its_texts_and_closes_its_source() -> None:
    heard: list[Outcome] = []
    source = TwoWay(answer())
    chunks: Any = guard(on_outcome=heard.append).wrap(lambda: source)()
    while not content([next(chunks)]):
        pass
    chunks.close()
    assert source.closed
    assert [outcome.degraded for outcome in heard] == [("unfinished",)]


def test_errors_of_the_source_pass_through_and_nothing_unjudged_goes_out() -> None:
    def failing() -> Iterator[Any]:
        yield chunk({"content": f"{CLEAN} The id"})
        raise ConnectionError

    shown: list[Any] = []
    with pytest.raises(ConnectionError):
        shown.extend(guard().wrap(failing)())
    assert content(shown) == CLEAN


def test_each_text_is_announced_once() -> None:
    heard: list[Outcome] = []
    run("generator", answer(), guard(on_outcome=heard.append))
    assert [outcome.text for outcome in heard] == [MENDED]
