"""A validator for Guardrails AI that fixes what is toxic: ``guardrails.Guard().use(Detox())``.

Needs the package ``guardrails-ai``. Streams are validated sentence by sentence, each alone; put
``guard.stream`` around a stream for one that equals the whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from guardrail.errors import BlockedError, FailureError
from guardrail.guard import Guard

try:
    from guardrails.validators import (
        ErrorSpan,
        FailResult,
        PassResult,
        ValidationResult,
        Validator,
        register_validator,
    )
except ImportError:
    raise FailureError("guardrail.integrations.guardrails_ai needs: pip install guardrails-ai") from None

__all__ = ["Detox"]

SENTENCE_END = re.compile(r"[.!?][\"')\]]*\s+(?=\S)")


@register_validator(name="guardrail/detox", data_type="string")
class Detox(Validator):  # type: ignore[misc,unused-ignore]  # has no types where it is not installed
    """Passes clean text; what is toxic fails, and what the guard makes of it is the fix.

    on_fail  what Guardrails AI does with a failure: "fix" shows the rewrite, "exception" raises, "filter",
             "refrain" and "noop" as documented there
    guard    the guard that moderates; default: ``Guard()``
    """

    def __init__(
        self, *, guard: Guard | None = None, on_fail: str | Callable[..., Any] = "fix", **settings: Any
    ) -> None:
        super().__init__(on_fail=on_fail, **settings)
        self._guard = Guard() if guard is None else guard

    def _validate(self, value: Any, metadata: dict[str, Any]) -> ValidationResult:
        try:
            outcome = self._guard.check(value)
        except BlockedError as blocked:
            outcome = blocked.outcome
        if not outcome.changed:
            return PassResult()
        spans = [ErrorSpan(start=edit.start, end=edit.end, reason=str(edit.action)) for edit in outcome.edits]
        return FailResult(error_message=outcome.summary(), fix_value=outcome.text, error_spans=spans)

    def _chunking_function(self, chunk: str) -> list[str]:
        """All whole sentences and the rest, with the white space between them, which the default drops."""
        ends = [found.end() for found in SENTENCE_END.finditer(chunk)]
        return [chunk[: ends[-1]], chunk[ends[-1] :]] if ends else []
