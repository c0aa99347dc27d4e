"""What type checkers must see: moderated functions keep their signatures. Never run, only checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass

from langchain_core.runnables import Runnable, RunnableLambda
from typing_extensions import assert_type

from guardrail import Guard, Policy, detox_guard
from guardrail.integrations.langchain import wrap


@dataclass(frozen=True)
class Answer:
    text: str
    score: float


@detox_guard
def plain(prompt: str, *, times: int = 1) -> str:
    return prompt * times


@detox_guard(policy=Policy(threshold=0.6))
async def coroutine(prompt: str) -> str:
    return prompt


@detox_guard
def chunks(prompt: str) -> Iterator[str]:
    yield prompt


@detox_guard
def generator(prompt: str) -> Generator[str, None, None]:
    yield prompt


@detox_guard
async def async_chunks(prompt: str) -> AsyncIterator[str]:
    yield prompt


@detox_guard
async def async_generator(prompt: str) -> AsyncGenerator[str, None]:
    yield prompt


@detox_guard(paths=["text"])
def structured(prompt: str) -> Answer:
    return Answer(prompt, 1.0)


class Agent:
    @detox_guard
    def method(self, prompt: str) -> str:
        return prompt

    @staticmethod
    @detox_guard
    def static(prompt: str) -> str:
        return prompt

    @classmethod
    @detox_guard
    def on_class(cls, prompt: str) -> list[str]:
        return [prompt]


assert_type(plain("x", times=2), str)
assert_type(chunks("x"), Iterator[str])
assert_type(generator("x"), Generator[str, None, None])
assert_type(async_chunks("x"), AsyncIterator[str])
assert_type(async_generator("x"), AsyncGenerator[str, None])
assert_type(structured("x"), Answer)
assert_type(Agent().method("x"), str)
assert_type(Agent.static("x"), str)
assert_type(Agent.on_class("x"), list[str])

guard = Guard()
assert_type(guard.wrap(plain)("x"), str)
assert_type(guard.moderate(Answer("x", 1.0), paths=["text"]), Answer)
assert_type(guard.moderate(["x"]), list[str])

runnable: Runnable[int, str] = RunnableLambda(str)
assert_type(wrap(guard, runnable), Runnable[int, str])
assert_type(wrap(guard, runnable).invoke(1), str)


async def awaits() -> None:
    assert_type(await coroutine("x"), str)
    assert_type(await guard.amoderate(["x"]), list[str])


# Mistakes that must stay mistakes: each ignore below is an error if it is not needed.
plain(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
plain("x", 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
plain("x", times="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Agent().method()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
detox_guard(guard=guard, policies=Policy())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
