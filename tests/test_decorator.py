"""@detox_guard on every kind of function that returns text."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import Any

import pytest

from guardrail import Guard, Outcome, Policy, detox_guard
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


def test_a_plain_function_that_returns_a_coroutine_is_an_error() -> None:
    async def inner() -> str:
        return TOXIC

    with pytest.raises(TypeError, match="coroutine"):
        WORDS.wrap(lambda: inner())()  # it must not look like a coroutine function


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
