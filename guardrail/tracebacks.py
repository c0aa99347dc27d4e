"""Errors leave this package without the frames they came through, whose variables hold text.

Tracebacks that show local variables are common. ``GUARDRAIL_DEBUG=1`` is for those who look for a bug with
texts that anyone may read: frames stay, and the exception of a plug-in is chained to the PluginError.
"""

from __future__ import annotations

import os
from types import TracebackType

from guardrail.errors import GuardrailError

__all__ = ["WithoutFrames", "debugging"]


def debugging() -> bool:
    """True under ``GUARDRAIL_DEBUG=1``; read anew each time, so that it can be set in a running process."""
    return os.environ.get("GUARDRAIL_DEBUG", "") not in ("", "0")


class WithoutFrames:
    """A block out of which errors of these types, by default this package's own, come without their frames
    inside it, and without a context.
    """

    __slots__ = ("_types",)

    def __init__(self, *types: type[BaseException]) -> None:
        self._types = types or (GuardrailError,)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, self._types) and not debugging():
            raise error.with_traceback(None) from None
