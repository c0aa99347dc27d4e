"""A validator for Guardrails AI that fixes what is toxic: ``guardrails.Guard().use(detox())``.

Needs the package ``guardrails-ai``. Streams are validated sentence by sentence, each alone; put
``guard.stream`` around a stream for one that equals the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

from guardrail.errors import BlockedError, FailureError
from guardrail.guard import Guard

__all__ = ["detox"]

SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=\S)")


def detox(*, guard: Guard | None = None, on_fail: str | Callable[..., Any] = "fix", **settings: Any) -> Any:
    """A validator that passes clean text; what is toxic fails, and what the guard makes of it is the fix.

    Args:
        guard: The guard that moderates; default: ``Guard()``.
        on_fail: What Guardrails AI does with a failure: "fix" shows the rewrite, "exception" raises;
            "filter", "refrain" and "noop" are as documented there.
        settings: Further arguments of its ``Validator``.
    """
    if find_spec("guardrails") is None:
        raise FailureError("guardrail.integrations.guardrails_ai needs: pip install guardrails-ai")
    return _validator()(Guard() if guard is None else guard, on_fail=on_fail, **settings)


@cache
def _validator() -> Any:
    """The validator's class; only who uses it needs the package."""
    from guardrails import validators as package

    @package.register_validator(name="guardrail/detox", data_type="string")
    class Detox(package.Validator):  # type: ignore[misc]  # the package need not be there
        def __init__(self, guard: Guard, **settings: Any) -> None:
            super().__init__(**settings)
            self._guard = guard

        def _validate(self, value: Any, metadata: dict[str, Any]) -> Any:
            try:
                outcome = self._guard.check(value)
            except BlockedError as blocked:
                outcome = blocked.outcome
            if not outcome.changed:
                return package.PassResult()
            spans = [
                package.ErrorSpan(start=edit.start, end=edit.end, reason=str(edit.action))
                for edit in outcome.edits
            ]
            return package.FailResult(
                error_message=outcome.summary(), fix_value=outcome.text, error_spans=spans
            )

        def _chunking_function(self, chunk: str) -> list[str]:
            # All whole sentences and the rest, with the white space between them, which the default drops.
            ends = [found.end() for found in SENTENCE_END.finditer(chunk)]
            return [chunk[: ends[-1]], chunk[ends[-1] :]] if ends else []

    return Detox
