"""Streams of messages: what goes out when, for every way of cutting a message into chunks."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda

from guardrail import Guard, Verdict
from guardrail.integrations.langchain import wrap
from tests.bus import BLOCK, CLEAN, MENDED, NEUTRAL, REFUSAL, TEXT, TOXIC, guard
from tests.fakes import WordDetector
from tests.integrations.langchain.models import Scripted, call, calls, generic, says


def _chain(chunks: Sequence[AIMessageChunk], by: Guard | None) -> Runnable[str, Any]:
    return wrap(by or guard(), RunnableLambda(str) | Scripted(script=[list(chunks)]))


def streamed(chunks: Sequence[AIMessageChunk], by: Guard | None = None) -> list[AIMessageChunk]:
    """What comes out when a chain streams these chunks."""
    return list(_chain(chunks, by).stream("hello"))


def astreamed(chunks: Sequence[AIMessageChunk], by: Guard | None = None) -> list[AIMessageChunk]:
    async def gather() -> list[AIMessageChunk]:
        return [chunk async for chunk in _chain(chunks, by).astream("hello")]

    return asyncio.run(gather())


def whole(chunks: Sequence[AIMessageChunk], by: Guard | None = None) -> AIMessage:
    """The same answer unstreamed."""
    message: AIMessage = wrap(by or guard(), Scripted(script=[list(chunks)])).invoke("hello")
    return message


def joined(chunks: Sequence[AIMessageChunk]) -> AIMessage:
    first, *rest = chunks
    message = message_chunk_to_message(sum(rest, first))
    assert isinstance(message, AIMessage)
    return message


def content(message: AIMessage) -> tuple[Any, Any]:
    return message.content, message.tool_calls


def text_chunks(text: str, cuts: Sequence[int] = ()) -> list[AIMessageChunk]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [says(text[start:end], id="m1") for start, end in itertools.pairwise(edges)]


def block_chunks(*blocks: dict[str, Any]) -> list[AIMessageChunk]:
    return [AIMessageChunk(content=[block], id="m1") for block in blocks]


words = st.lists(
    st.sampled_from(["The", "bus", "idiot", "is late.", "Fine.", "moron", "\n", "{"]), max_size=14
)
cuts = st.lists(st.integers(0, 80), max_size=10)


@settings(max_examples=30)
@given(words.map(" ".join), cuts, st.sampled_from([None, "buses", TOXIC]), st.sampled_from([None, BLOCK]))
def test_however_a_message_is_cut_its_stream_adds_up_to_the_unstreamed_one(
    text: str, cuts: list[int], query: str | None, policy: Any
) -> None:
    chunks = text_chunks(text, cuts) + ([] if query is None else calls(query))
    careful = guard(policy)
    expected = content(whole(chunks, careful))
    assert content(joined(streamed(chunks, careful))) == expected
    assert content(joined(astreamed(chunks, careful))) == expected


@settings(max_examples=30)
@given(st.lists(words.map(" ".join).filter(bool), min_size=1, max_size=3), cuts)
def test_blocks_of_a_stream_add_up_to_the_unstreamed_ones(texts: list[str], cuts: list[int]) -> None:
    chunks = []
    for index, text in enumerate(texts):
        chunks += [
            AIMessageChunk(content=[{"type": "text", "text": part.content, "index": index}], id="m1")
            for part in text_chunks(text, cuts)
        ]
    for policy in (None, BLOCK):
        careful = guard(policy)
        assert str(joined(streamed(chunks, careful)).text) == str(whole(chunks, careful).text)


def test_no_character_leaves_before_its_verdict() -> None:
    class Recording(WordDetector):
        def detect(self, texts: Sequence[str]) -> list[Verdict]:
            judged.append("".join(texts))
            return super().detect(texts)

    judged: list[str] = []
    chunks = text_chunks(f"{CLEAN} {CLEAN} {CLEAN}", range(0, 130, 7))
    shown = ""
    for chunk in wrap(guard(detector=Recording()), Scripted(script=[chunks])).stream("hello"):
        shown += str(chunk.text)
        assert all(sentence in " ".join(judged) for sentence in shown.replace(". ", ".\n").splitlines())
    assert shown == f"{CLEAN} {CLEAN} {CLEAN}"


def test_a_sentence_goes_out_before_the_rest_is_there() -> None:
    pulled: list[str] = []

    def answer(values: Iterator[Any]) -> Iterator[AIMessageChunk]:
        list(values)
        for chunk in text_chunks(TEXT, range(10, 120, 10)):
            pulled.append(str(chunk.content))
            yield chunk

    chain: Runnable[Any, AIMessageChunk] = wrap(guard(), RunnableGenerator(answer))
    stream = chain.stream("hello")
    assert next(stream).content == CLEAN
    assert len("".join(pulled)) < len(CLEAN) + 20
    assert "".join(str(chunk.content) for chunk in stream) == MENDED.removeprefix(CLEAN)


def test_metadata_goes_out_once_and_in_order() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    chunks = [
        says(id="m1", response_metadata={"model_name": "m"}),
        *text_chunks(TEXT, [30, 60]),
        says(id="m1", response_metadata={"finish_reason": "stop"}),
        says(id="m1", usage_metadata=usage),
        says(id="m1", chunk_position="last"),
    ]
    out = streamed(chunks)
    assert out[0].response_metadata == {"model_name": "m"}
    told = [
        name for chunk in out for name in ("finish_reason", "model_name") if name in chunk.response_metadata
    ]
    assert told == ["model_name", "finish_reason"]
    assert [chunk.usage_metadata for chunk in out if chunk.usage_metadata] == [usage]
    assert [chunk.chunk_position for chunk in out] == [None] * (len(out) - 1) + ["last"]
    message = joined(out)
    assert (message.id, message.content, message.usage_metadata) == ("m1", MENDED, usage)


def test_metadata_that_comes_with_every_word_is_not_multiplied() -> None:
    chunks = [says(word, id="m1", response_metadata={"model_provider": "p"}) for word in TEXT.partition(".")]
    chunks[-1].response_metadata["finish_reason"] = "stop"
    message = joined(streamed(chunks))
    assert message.content == MENDED
    assert message.response_metadata == {"model_provider": "p", "finish_reason": "stop"}


def test_fragments_of_calls_go_out_as_they_came_once_they_are_judged() -> None:
    fragments = calls("buses", pieces=4)
    out = streamed([*text_chunks(TEXT), *fragments])
    assert [chunk.tool_call_chunks for chunk in out if chunk.tool_call_chunks] == [
        chunk.tool_call_chunks for chunk in fragments
    ]
    assert joined(out).tool_calls == [call("buses")]


@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_a_flagged_call_never_goes_out_in_fragments(pieces: int) -> None:
    out = streamed([*text_chunks(CLEAN), *calls(TOXIC, pieces=pieces)])
    assert all(not chunk.tool_call_chunks for chunk in out)
    assert joined(out).content == f"{CLEAN}\n\n{REFUSAL}"


def test_nothing_but_metadata_follows_a_blocked_segment() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    out = streamed([*text_chunks(TEXT), *calls("buses"), says(usage_metadata=usage)], guard(BLOCK))
    message = joined(out)
    assert message.content == f"{CLEAN} {REFUSAL}"
    assert (message.tool_calls, message.usage_metadata) == ([], usage)


def test_extras_that_come_in_fragments_are_judged_as_a_whole() -> None:
    extras = [says(additional_kwargs={"reasoning_content": part}) for part in ("What an id", "iot.")]
    message = joined(streamed([*extras, *text_chunks(CLEAN)]))
    assert message.additional_kwargs == {}
    assert message.content == f"{CLEAN}\n\n{REFUSAL}"


def test_reasoning_blocks_are_prose() -> None:
    chunks = block_chunks(
        {"type": "reasoning", "reasoning": "The driver of that ", "index": 0},
        {"type": "reasoning", "reasoning": "bus is an idiot.", "index": 0},
        {"type": "text", "text": CLEAN, "index": 1},
    )
    assert joined(streamed(chunks)).content == [
        {"type": "reasoning", "reasoning": NEUTRAL, "index": 0},
        {"type": "text", "text": CLEAN, "index": 1},
    ]


def test_annotations_of_a_block_are_read_and_kept() -> None:
    annotation = {"type": "citation", "title": "Buses"}
    chunks = block_chunks(
        {"type": "text", "text": TOXIC, "index": 0},
        {"type": "text", "text": "", "annotations": [annotation], "index": 0},
    )
    block = {"type": "text", "text": NEUTRAL, "annotations": [annotation], "index": 0}
    assert joined(streamed(chunks)).content == [block]
    annotation["title"] = "idiot"
    assert "idiot" not in repr(streamed(chunks))


def test_log_probabilities_never_go_out() -> None:
    tokens = {"content": [{"token": "idiot", "logprob": -0.5}]}
    out = streamed([says(TEXT, response_metadata={"logprobs": tokens})])
    assert "idiot" not in repr(out)


def test_json_is_held_until_it_is_whole() -> None:
    for answer in (CLEAN, TOXIC):
        chunks = text_chunks(json.dumps({"answer": answer}), [5, 20, 30])
        message = joined(streamed(chunks))
        assert message.content == whole(chunks).content
        assert (answer in str(message.content)) is (answer is CLEAN)


def test_what_only_looks_like_json_is_prose() -> None:
    chunks = text_chunks(f"[Note] {TOXIC}", [3, 9])
    assert joined(streamed(chunks)).content == whole(chunks).content == guard().check(f"[Note] {TOXIC}").text


@pytest.mark.parametrize(
    "flagged",
    [{"id": "idiot"}, {"id": "m1", "name": "idiot"}, {"id": "m1", "response_metadata": {"model": "idiot"}}],
)
@pytest.mark.parametrize("stream", [streamed, astreamed])
def test_what_is_flagged_of_an_identity_is_taken_out_and_the_text_goes_on(
    stream: Callable[..., list[AIMessageChunk]], flagged: dict[str, Any]
) -> None:
    chunks = [says(part, **flagged) for part in (f"{CLEAN} The driver of that ", f"bus is an idiot. {CLEAN}")]
    out = stream([*chunks, *calls("buses")])
    assert "idiot" not in repr(out)
    message = joined(out)
    unstreamed = wrap(guard(), generic(AIMessage(TEXT, tool_calls=[call("buses")], **flagged))).invoke("x")
    assert content(message) == content(unstreamed) == (f"{MENDED}\n\n{REFUSAL}", [])
    assert out[0].content == CLEAN, "not held until the message is over"


def test_one_refusal_stands_for_a_blocked_segment_and_a_flagged_identity() -> None:
    chunks = [says(TEXT, id="idiot"), says("", id="m1", response_metadata={"model": "idiot"})]
    message = joined(streamed(chunks, guard(BLOCK)))
    assert message.content == whole(chunks, guard(BLOCK)).content == f"{CLEAN} {REFUSAL}"
    assert (message.response_metadata, "idiot" in repr(message)) == ({}, False)


def test_an_identity_that_comes_with_every_chunk_is_judged_once() -> None:
    detector = WordDetector()
    streamed(
        [says(word, id="idiot", name="bob") for word in ("One ", "two ", "three.")], guard(detector=detector)
    )
    judged = [text for texts in detector.calls for text in texts]
    assert (judged.count("idiot"), judged.count("bob")) == (1, 1)


def test_closing_a_stream_early_closes_the_chain() -> None:
    closed: list[str] = []

    def answer(values: Iterator[Any]) -> Iterator[AIMessageChunk]:
        try:
            list(values)
            yield from text_chunks(TEXT, range(0, 120, 5))
        finally:
            closed.append("chain")

    chain: Runnable[Any, AIMessageChunk] = wrap(guard(), RunnableGenerator(answer))
    stream = chain.stream("hello")
    next(stream)
    stream.close()  # type: ignore[attr-defined]  # it is a generator
    del stream
    assert closed == ["chain"]


def test_cancelling_an_asynchronous_stream_closes_the_chain() -> None:
    closed: list[str] = []

    async def answer(values: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
        try:
            async for _ in values:
                pass
            for chunk in text_chunks(TEXT):
                yield chunk
            await asyncio.Event().wait()  # a model that says no more
        finally:
            closed.append("chain")

    async def listen() -> None:
        async for chunk in wrap(guard(), RunnableGenerator(answer)).astream("hello"):
            shown.append(str(chunk.content))
            started.set()

    async def cancel() -> None:
        task = asyncio.create_task(listen())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    shown: list[str] = []
    started = asyncio.Event()
    asyncio.run(cancel())
    assert closed == ["chain"]
    assert MENDED.startswith("".join(shown))


def test_interleaved_streams_do_not_mix() -> None:
    async def one(number: int) -> str:
        text = f"Sentence number {number} has words. {TOXIC} Again number {number} has words."
        chain = wrap(shared, generic(text))
        pieces = []
        async for chunk in chain.astream("hello"):
            await asyncio.sleep(0)
            pieces.append(str(chunk.text))
        return "".join(pieces)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(one(number) for number in range(40)))

    shared = guard()
    for number, text in enumerate(asyncio.run(all_of_them())):
        assert text == f"Sentence number {number} has words. {NEUTRAL} Again number {number} has words."


def test_a_failing_detector_lets_nothing_out() -> None:
    def broken(texts: Sequence[str]) -> Any:
        raise RuntimeError

    message = joined(streamed([*text_chunks(TEXT), *calls("buses")], guard(detector=broken)))
    assert message.content == REFUSAL
    assert message.tool_calls == []


def test_chunks_of_other_values_come_out_as_one() -> None:
    async def answer(values: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for _ in values:
            yield ["The driver of that bus "]
            yield ["is fine."]

    async def gather() -> list[Any]:
        return [value async for value in wrap(guard(), RunnableGenerator(answer)).astream("x")]

    assert asyncio.run(gather()) == [["The driver of that bus ", "is fine."]]
