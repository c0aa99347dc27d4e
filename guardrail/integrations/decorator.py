"""@detox_guard: moderates what a function returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, TypeVar, overload

from guardrail.errors import UsageError
from guardrail.events import OutcomeHook
from guardrail.guard import Guard
from guardrail.policy import Policy

__all__ = ["detox_guard"]

F = TypeVar("F", bound=Callable[..., Any])


@overload
def detox_guard(function: F, /) -> F: ...
@overload
def detox_guard(
    *,
    policy: Policy | None = None,
    guard: Guard | None = None,
    on_outcome: OutcomeHook | None = None,
    paths: Sequence[str] = (),
) -> Callable[[F], F]: ...
def detox_guard(
    function: Callable[..., Any] | None = None,
    /,
    *,
    policy: Policy | None = None,
    guard: Guard | None = None,
    on_outcome: OutcomeHook | None = None,
    paths: Sequence[str] = (),
) -> Any:
    """Decorates a function or method of any kind, generators too, so that only moderated text leaves it.

    ``@detox_guard`` alone uses one default guard for the whole process, whose models load at the first call.

    Args:
        function: The function; left out if there are other arguments.
        policy: The policy of a guard of its own.
        guard: The guard to use, in place of ``policy`` and ``on_outcome``.
        on_outcome: Called with every outcome before its text is returned.
        paths: Where in a returned structure prose is, as for ``Guard.moderate``.

    Raises:
        UsageError: For ``guard`` together with ``policy`` or ``on_outcome``.
    """
    if function is not None:
        return _default_guard().wrap(function)
    if guard is not None and (policy is not None or on_outcome is not None):
        raise UsageError("pass either guard, or policy and on_outcome: a guard already has its own")
    if guard is None:
        chosen = policy is not None or on_outcome is not None
        guard = Guard(policy=policy, on_outcome=on_outcome) if chosen else _default_guard()
    return partial(guard.wrap, paths=paths)


@cache
def _default_guard() -> Guard:
    return Guard()
