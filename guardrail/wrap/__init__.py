"""Wraps a function so that the text it gives is moderated: same kind, same signature, same type back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Sequence,
)
from typing import Any, TypeVar

from guardrail.engine.adapters import TextModerator
from guardrail.engine.stream import AsyncStream, Stream
from guardrail.errors import UsageError
from guardrail.structured.paths import parse_paths
from guardrail.structured.records import is_value
from guardrail.wrap.chunks import AsyncChunks, Chunks, EitherChunks

__all__ = ["wrap"]

F = TypeVar("F", bound=Callable[..., Any])


def wrap(function: F, *, by: TextModerator, paths: Sequence[str] = ()) -> F:
    """A function of the same kind as the one given, whose result is moderated.

    Plain, coroutine, generator and asynchronous generator functions, methods, partials and callable objects
    will do, and what they return may be awaitable. A returned iterator of chunks becomes a stream, as the
    chunks of a generator do; chunks are text, or objects such as those of chat completions. ``paths`` say
    where in a returned structure prose is. TypeError is raised for what cannot be read: what was not checked
    is not passed on.
    """
    parse_paths(paths)
    if isinstance(function, (staticmethod, classmethod)):
        # Under the descriptor's own decorator, so that binding works as before.
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
    function: Callable[..., Any], target: Callable[..., Any], by: TextModerator, paths: Sequence[str]
) -> Callable[..., Any]:
    """The function, moderated; ``target`` shows of which kind it is."""
    if inspect.isasyncgenfunction(target):

        async def async_chunks(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            async with AsyncChunks(function(*args, **kwargs), by=by) as pieces:
                async for piece in pieces:
                    yield piece

        return async_chunks
    if inspect.isgeneratorfunction(target):

        def chunks(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            with Chunks(function(*args, **kwargs), by=by) as pieces:
                yield from pieces

        return chunks
    if inspect.iscoroutinefunction(target):

        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            return await _amoderated(await function(*args, **kwargs), by, paths)

        return coroutine

    def plain(*args: Any, **kwargs: Any) -> Any:
        return _moderated(function(*args, **kwargs), by, paths)

    return plain


def _moderated(result: Any, by: TextModerator, paths: Sequence[str]) -> Any:
    """What a plain function returned, moderated."""
    try:
        if inspect.isawaitable(result):
            return _awaited(result, by, paths)
        chunks = None if type(result) is str else _chunks_of(result, by)
        return by.moderate(result, paths=paths) if chunks is None else chunks
    finally:
        del result  # this frame is part of the traceback


async def _amoderated(result: Any, by: TextModerator, paths: Sequence[str]) -> Any:
    """What a coroutine function returned, moderated."""
    try:
        chunks = _chunks_of(result, by)
        return await by.amoderate(result, paths=paths) if chunks is None else chunks
    finally:
        del result


async def _awaited(result: Awaitable[Any], by: TextModerator, paths: Sequence[str]) -> Any:
    """What comes of an awaitable that a plain function returned, moderated."""
    return await _amoderated(await result, by, paths)


def _chunks_of(result: Any, by: TextModerator) -> Stream | AsyncStream | None:
    """The moderated chunks of what can be iterated and is not a value itself; None for a value."""
    if is_value(result):
        return None
    is_plain, is_asynchronous = isinstance(result, Iterable), isinstance(result, AsyncIterable)
    if is_plain and is_asynchronous:
        return EitherChunks(result, by=by)
    if is_asynchronous:
        return AsyncChunks(result, by=by)
    return Chunks(result, by=by) if is_plain else None


def _kind(function: object) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
