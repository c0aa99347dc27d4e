"""Wraps a function so that the text it gives is moderated: same kind, same signature, same type back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any, Protocol, TypeVar

from guardrail.drive.stream import AsyncStream, Stream
from guardrail.errors import UsageError
from guardrail.outcome import Outcome

__all__ = ["Moderator", "wrap"]

F = TypeVar("F", bound=Callable[..., Any])


class Moderator(Protocol):
    """What moderates the results: a Guard."""

    def check(self, text: str) -> Outcome: ...
    async def acheck(self, text: str) -> Outcome: ...
    def stream(self, chunks: Iterable[str]) -> Stream: ...
    def astream(self, chunks: AsyncIterable[str] | Iterable[str]) -> AsyncStream: ...


def wrap(function: F, *, by: Moderator) -> F:
    """A function of the same kind as the one given, whose result is moderated.

    Plain, coroutine, generator and asynchronous generator functions, methods, partials and callable objects
    will do. A returned iterator of chunks becomes a stream, as the chunks of a generator do. TypeError is
    raised for what is no text: what was not checked is not passed on.
    """
    if isinstance(function, (staticmethod, classmethod)):
        # Under the descriptor's own decorator, so that binding goes on as before.
        return type(function)(wrap(function.__func__, by=by))
    target = function if inspect.isroutine(function) or isinstance(function, functools.partial) else None
    target = target or getattr(function, "__call__", None)  # noqa: B004  # its method is judged
    if target is None or inspect.isclass(function):
        raise UsageError(f"expected a function that returns text, got {_kind(function)}")
    guarded = _guarded(function, target, by)
    return functools.update_wrapper(guarded, function) if inspect.isroutine(function) else guarded  # type: ignore[return-value]


def _guarded(function: Callable[..., Any], target: Callable[..., Any], by: Moderator) -> Callable[..., Any]:
    """The function, moderated; ``target`` shows of which kind it is."""
    if inspect.isasyncgenfunction(target):

        async def async_chunks(*args: Any, **kwargs: Any) -> AsyncGenerator[str, None]:
            async with by.astream(function(*args, **kwargs)) as pieces:
                async for piece in pieces:
                    yield piece

        return async_chunks
    if inspect.isgeneratorfunction(target):

        def chunks(*args: Any, **kwargs: Any) -> Generator[str, None, None]:
            with by.stream(function(*args, **kwargs)) as pieces:
                yield from pieces

        return chunks
    if inspect.iscoroutinefunction(target):

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await _amoderated(await function(*args, **kwargs), by)

        return coroutine

    def plain(*args: Any, **kwargs: Any) -> Any:
        return _moderated(function(*args, **kwargs), by)

    return plain


def _moderated(result: Any, by: Moderator) -> Any:
    """What a plain function returned, moderated."""
    if isinstance(result, AsyncIterator):
        return by.astream(result)
    if isinstance(result, Iterator):
        return by.stream(result)
    text = _text(result)
    return _as_before(text, by.check(text).text)


async def _amoderated(result: Any, by: Moderator) -> Any:
    """What a coroutine function returned, moderated."""
    if isinstance(result, (AsyncIterator, Iterator)):
        return _moderated(result, by)
    text = _text(result)
    return _as_before(text, (await by.acheck(text)).text)


def _text(result: object) -> str:
    if isinstance(result, str):
        return result
    if inspect.iscoroutine(result):
        result.close()
    kind = type(result).__name__
    del result
    raise TypeError(f"the wrapped function returned {kind}; only str can be moderated")


def _as_before(result: str, text: str) -> str:
    """The same object where nothing changed; else the new text in the type that the function returned."""
    if text == result:
        return result
    return text if type(result) is str else type(result)(text)


def _kind(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
