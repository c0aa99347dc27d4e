"""Wraps a function so that the text it returns is moderated: same kind, same signature, same type back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from guardrail.errors import UsageError
from guardrail.outcome import Outcome

__all__ = ["wrap"]

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[str], Outcome]
AsyncCheck = Callable[[str], Awaitable[Outcome]]


def wrap(function: F, *, check: Check, acheck: AsyncCheck) -> F:
    """A function of the same kind as the one given (plain or coroutine function, method, callable object).

    It raises TypeError where the result is not a str: what was not checked is not passed on.
    """
    if isinstance(function, (staticmethod, classmethod)):
        # Under the descriptor's own decorator, so that binding goes on as before.
        return type(function)(wrap(function.__func__, check=check, acheck=acheck))
    target = function if inspect.isroutine(function) or isinstance(function, functools.partial) else None
    target = target or getattr(function, "__call__", None)  # noqa: B004  # its method is judged
    if target is None or inspect.isclass(function):
        raise UsageError(f"expected a function that returns text, got {_kind(function)}")
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise UsageError(f"{_kind(function)} yields its text; wrap a function that returns it whole")
    if inspect.iscoroutinefunction(target):

        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            result = _text(await function(*args, **kwargs))
            return _as_before(result, (await acheck(result)).text)

        return _dressed(guarded_async, function)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        result = _text(function(*args, **kwargs))
        return _as_before(result, check(result).text)

    return _dressed(guarded, function)


def _dressed(guarded: Callable[..., Any], function: F) -> F:
    return functools.update_wrapper(guarded, function) if inspect.isroutine(function) else guarded  # type: ignore[return-value]


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
