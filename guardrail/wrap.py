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
    Sequence,
)
from typing import Any, Protocol, TypeVar

from guardrail.drive.stream import AsyncStream, Stream
from guardrail.errors import UsageError
from guardrail.structured.paths import parse_paths

__all__ = ["Moderator", "wrap"]

F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V")


class Moderator(Protocol):
    """What moderates the results: a Guard."""

    def moderate(self, value: V, *, paths: Sequence[str] = ()) -> V: ...
    async def amoderate(self, value: V, *, paths: Sequence[str] = ()) -> V: ...
    def stream(self, chunks: Iterable[str]) -> Stream: ...
    def astream(self, chunks: AsyncIterable[str] | Iterable[str]) -> AsyncStream: ...


def wrap(function: F, *, by: Moderator, paths: Sequence[str] = ()) -> F:
    """A function of the same kind as the one given, whose result is moderated.

    Plain, coroutine, generator and asynchronous generator functions, methods, partials and callable objects
    will do. A returned iterator of chunks becomes a stream, as the chunks of a generator do. ``paths`` say
    where in a returned structure prose is. TypeError is raised for what cannot be read: what was not checked
    is not passed on.
    """
    parse_paths(paths)
    if isinstance(function, (staticmethod, classmethod)):
        # Under the descriptor's own decorator, so that binding goes on as before.
        return type(function)(wrap(function.__func__, by=by, paths=paths))
    target = function if inspect.isroutine(function) or isinstance(function, functools.partial) else None
    target = target or getattr(function, "__call__", None)  # noqa: B004  # its method is judged
    if target is None or inspect.isclass(function):
        raise UsageError(f"expected a function that returns text, got {_kind(function)}")
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        if paths:
            raise UsageError(f"{_kind(function)} yields chunks of text; paths are for functions that return")
        by.stream(())  # a policy that no stream can keep is refused here and now
    guarded = _guarded(function, target, by, paths)
    return functools.update_wrapper(guarded, function) if inspect.isroutine(function) else guarded  # type: ignore[return-value]


def _guarded(
    function: Callable[..., Any], target: Callable[..., Any], by: Moderator, paths: Sequence[str]
) -> Callable[..., Any]:
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
            return await _amoderated(await function(*args, **kwargs), by, paths)

        return coroutine

    def plain(*args: Any, **kwargs: Any) -> Any:
        return _moderated(function(*args, **kwargs), by, paths)

    return plain


def _moderated(result: Any, by: Moderator, paths: Sequence[str]) -> Any:
    """What a plain function returned, moderated."""
    try:
        if isinstance(result, AsyncIterator):
            return by.astream(result)
        return by.stream(result) if isinstance(result, Iterator) else by.moderate(result, paths=paths)
    finally:
        del result  # this frame is part of the traceback


async def _amoderated(result: Any, by: Moderator, paths: Sequence[str]) -> Any:
    """What a coroutine function returned, moderated."""
    try:
        if isinstance(result, (AsyncIterator, Iterator)):
            return _moderated(result, by, paths)
        return await by.amoderate(result, paths=paths)
    finally:
        del result


def _kind(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
