"""@detox_guard on every kind of function that returns text."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from guardrail import Guard, Outcome, Policy, detox_guard
from guardrail.engine.stream import Stream
from guardrail.errors import UsageError
from tests.fakes import BagEmbedder, WordDetector

TOXIC = "The driver of that bus is an idiot."
NEUTRAL = "The driver of that bus is a person."
WORDS = Guard(
    detector=WordDetector(),
    rewriter=lambda segments, n: [[NEUTRAL] for _ in segments],
    embedder=BagEmbedder(),
    lexicon=WordDetector(),
)


@detox_guard(guard=WORDS)
def plain(prompt: str, *, times: int = 1) -> str:
    """Says it."""
    return prompt * times


def test_a_plain_function_returns_moderated_text() -> None:
    assert plain(TOXIC) == NEUTRAL
    assert plain("fine. ", times=2) == "fine. fine. "


def test_name_docstring_and_signature_stay() -> None:
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Says it."
    assert list(inspect.signature(plain).parameters) == ["prompt", "times"]


def test_a_coroutine_function_stays_one() -> None:
    @detox_guard(guard=WORDS)
    async def agent(prompt: str) -> str:
        await asyncio.sleep(0)
        return prompt

    assert inspect.iscoroutinefunction(agent)
    assert asyncio.run(agent(TOXIC)) == NEUTRAL


class Agent:
    @detox_guard(guard=WORDS)
    def method(self, prompt: str) -> str:
        assert isinstance(self, Agent)
        return prompt

    @detox_guard(guard=WORDS)
    async def amethod(self, prompt: str) -> str:
        return prompt

    @staticmethod
    @detox_guard(guard=WORDS)
    def inner(prompt: str) -> str:
        return prompt

    @detox_guard(guard=WORDS)
    @staticmethod
    def outer(prompt: str) -> str:
        return prompt

    @detox_guard(guard=WORDS)
    @classmethod
    def on_class(cls, prompt: str) -> str:
        assert cls is Agent
        return prompt

    def __call__(self, prompt: str) -> str:
        return prompt


def test_methods_of_every_kind_are_moderated() -> None:
    agent = Agent()
    assert agent.method(TOXIC) == NEUTRAL
    assert asyncio.run(agent.amethod(TOXIC)) == NEUTRAL
    assert Agent.inner(TOXIC) == Agent.outer(TOXIC) == agent.outer(TOXIC) == NEUTRAL
    assert Agent.on_class(TOXIC) == NEUTRAL


def test_wrap_takes_callable_objects_partials_and_bound_methods() -> None:
    assert WORDS.wrap(Agent())(TOXIC) == NEUTRAL
    assert WORDS.wrap(functools.partial(lambda a, b: a, TOXIC))("x") == NEUTRAL
    assert WORDS.wrap(Agent().method)(TOXIC) == NEUTRAL


def test_a_str_subclass_comes_back_as_one() -> None:
    class Reply(str):
        pass

    unchanged = Reply("The weather is fine.")
    assert WORDS.wrap(lambda: unchanged)() is unchanged
    assert type(WORDS.wrap(lambda: Reply(TOXIC))()) is Reply


@pytest.mark.parametrize("result", [b"bytes", object()])
def test_a_result_that_cannot_be_read_is_an_error_and_does_not_pass(result: Any) -> None:
    with pytest.raises(TypeError, match=type(result).__name__):
        WORDS.wrap(lambda: result)()


def test_an_awaitable_that_a_plain_function_returns_is_moderated() -> None:
    async def inner() -> str:
        return TOXIC

    async def chunks() -> AsyncIterator[str]:
        async def source() -> AsyncIterator[str]:
            yield TOXIC

        return source()

    async def run() -> None:
        assert await WORDS.wrap(lambda: inner())() == NEUTRAL
        future = asyncio.get_running_loop().create_future()
        future.set_result([TOXIC])
        assert await WORDS.wrap(lambda: future)() == [NEUTRAL]
        assert await collected(await WORDS.wrap(lambda: chunks())()) == NEUTRAL

    asyncio.run(run())


@detox_guard(guard=WORDS)
def chunks(prompt: str, *, size: int = 5) -> Iterator[str]:
    """Yields it."""
    for start in range(0, len(prompt), size):
        yield prompt[start : start + size]


@detox_guard(guard=WORDS)
async def async_chunks(prompt: str, *, size: int = 5) -> AsyncIterator[str]:
    """Yields it."""
    for start in range(0, len(prompt), size):
        await asyncio.sleep(0)
        yield prompt[start : start + size]


async def collected(pieces: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in pieces])


def test_a_generator_function_stays_one_and_yields_moderated_text() -> None:
    assert inspect.isgeneratorfunction(chunks)
    assert list(chunks(f"{TOXIC} {TOXIC}", size=3)) == [NEUTRAL, f" {NEUTRAL}"]


def test_an_asynchronous_generator_function_stays_one_and_yields_moderated_text() -> None:
    assert inspect.isasyncgenfunction(async_chunks)
    assert asyncio.run(collected(async_chunks(f"{TOXIC} {TOXIC}", size=3))) == f"{NEUTRAL} {NEUTRAL}"


@pytest.mark.parametrize("function", [chunks, async_chunks])
def test_generator_functions_keep_name_docstring_and_signature(function: Callable[..., Any]) -> None:
    assert function.__name__ in ("chunks", "async_chunks")
    assert function.__doc__ == "Yields it."
    assert list(inspect.signature(function).parameters) == ["prompt", "size"]


class StreamingAgent:
    @detox_guard(guard=WORDS)
    def method(self, prompt: str) -> Iterator[str]:
        assert isinstance(self, StreamingAgent)
        yield prompt

    @detox_guard(guard=WORDS)
    async def amethod(self, prompt: str) -> AsyncIterator[str]:
        yield prompt

    @detox_guard(guard=WORDS)
    @staticmethod
    def static(prompt: str) -> Iterator[str]:
        yield prompt

    @classmethod
    @detox_guard(guard=WORDS)
    def on_class(cls, prompt: str) -> Iterator[str]:
        assert cls is StreamingAgent
        yield prompt

    def __call__(self, prompt: str) -> Iterator[str]:
        yield prompt


def test_methods_that_yield_are_moderated() -> None:
    agent = StreamingAgent()
    assert list(agent.method(TOXIC)) == list(agent.static(TOXIC)) == [NEUTRAL]
    assert list(StreamingAgent.on_class(TOXIC)) == [NEUTRAL]
    assert asyncio.run(collected(agent.amethod(TOXIC))) == NEUTRAL


def test_wrap_takes_objects_and_partials_that_yield() -> None:
    assert list(WORDS.wrap(StreamingAgent())(TOXIC)) == [NEUTRAL]
    assert list(WORDS.wrap(functools.partial(StreamingAgent().method, TOXIC))()) == [NEUTRAL]


def test_a_returned_iterator_is_moderated_as_a_stream() -> None:
    def plain() -> Iterator[str]:
        return iter([TOXIC, " ", TOXIC])

    def asynchronous() -> AsyncIterator[str]:
        return async_source()

    async def awaited() -> AsyncIterator[str]:
        return async_source()

    async def async_source() -> AsyncIterator[str]:
        yield TOXIC

    stream = WORDS.wrap(plain)()
    assert isinstance(stream, Stream)
    assert list(stream) == [NEUTRAL, f" {NEUTRAL}"]
    assert stream.outcome is not None
    assert asyncio.run(collected(WORDS.wrap(asynchronous)())) == NEUTRAL

    async def run() -> str:
        return await collected(await WORDS.wrap(awaited)())

    assert asyncio.run(run()) == NEUTRAL


def test_the_function_does_not_run_before_its_first_piece_is_wanted() -> None:
    ran: list[str] = []

    @detox_guard(guard=WORDS)
    def lazy() -> Iterator[str]:
        ran.append("ran")
        yield TOXIC

    pieces = lazy()
    assert not ran
    assert next(pieces) == NEUTRAL
    assert ran


@pytest.mark.parametrize("how", ["close", "throw", "drop"])
def test_closing_the_wrapper_closes_the_generator(how: str) -> None:
    heard: list[Outcome] = []
    closed: list[str] = []

    @Guard(detector=WordDetector(), rewriter=None, lexicon=WordDetector(), on_outcome=heard.append).wrap
    def endless() -> Iterator[str]:
        try:
            while True:
                yield "The weather is fine, as it always was. "
        finally:
            closed.append("closed")

    pieces = endless()
    next(pieces)
    if how == "close":
        pieces.close()  # type: ignore[attr-defined]  # a generator, whatever its annotation promises
    elif how == "throw":
        with pytest.raises(KeyError):
            pieces.throw(KeyError())  # type: ignore[attr-defined]  # as above
    else:
        del pieces
    assert closed == ["closed"]
    assert [outcome.degraded for outcome in heard] == [("unfinished",)]


def test_closing_an_asynchronous_wrapper_closes_the_generator() -> None:
    closed: list[str] = []

    @WORDS.wrap
    async def endless() -> AsyncGenerator[str, None]:
        try:
            while True:
                yield "The weather is fine, as it always was. "
        finally:
            closed.append("closed")

    async def run() -> None:
        pieces = endless()
        await anext(pieces)
        await pieces.aclose()
        assert closed == ["closed"]

    asyncio.run(run())


def test_a_stream_of_a_policy_that_withholds_whole_texts_is_refused_when_decorated() -> None:
    def source() -> Iterator[str]:
        yield TOXIC

    with pytest.raises(UsageError, match="block='segment'"):
        detox_guard(policy=Policy(block="whole"))(source)


def test_a_class_is_refused_when_decorated() -> None:
    with pytest.raises(UsageError, match="Agent"):
        WORDS.wrap(Agent)


def test_the_hook_and_the_policy_belong_to_the_decorated_function() -> None:
    heard: list[Outcome] = []

    @detox_guard(policy=Policy(on_error="open"), on_outcome=heard.append)
    def quiet() -> str:
        return "   "

    assert quiet() == "   "
    assert len(heard) == 1


def test_guard_and_policy_together_are_refused() -> None:
    with pytest.raises(UsageError, match="either"):
        detox_guard(guard=WORDS, policy=Policy())  # type: ignore[call-overload]  # the mistake under test


def test_exceptions_of_the_function_pass_through() -> None:
    def fails() -> str:
        raise KeyError("its own")

    with pytest.raises(KeyError, match="its own"):
        WORDS.wrap(fails)()
