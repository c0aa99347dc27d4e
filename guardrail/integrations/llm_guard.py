"""Scanners for code written for LLM Guard or Gorget: ``scan`` gives text, validity and risk.

    from llm_guard import scan_output
    from guardrail.integrations.llm_guard import OutputScanner

    text, valid, risk = scan_output([OutputScanner()], prompt, answer)

They are told from other scanners by shape, so neither package need be installed.
"""

from __future__ import annotations

from guardrail.errors import BlockedError
from guardrail.guard import Guard
from guardrail.outcome import Action, Outcome

__all__ = ["InputScanner", "OutputScanner"]


class _Scanner:
    def __init__(self, guard: Guard | None = None, *, rewritten_is_valid: bool = False) -> None:
        self._guard = Guard() if guard is None else guard
        self._rewritten_is_valid = rewritten_is_valid

    def _scan(self, text: str) -> tuple[str, bool, float]:
        try:
            outcome = self._guard.check(text)
        except BlockedError as blocked:
            outcome = blocked.outcome
        return outcome.text, self._is_valid(outcome), outcome.verdict.score

    def _is_valid(self, outcome: Outcome) -> bool:
        if self._rewritten_is_valid:
            return outcome.action is not Action.BLOCKED
        return not outcome.changed


class OutputScanner(_Scanner):
    """Scans what a model said.

    Args:
        guard: The guard that moderates; default: ``Guard()``.
        rewritten_is_valid: A text that was rewritten, masked or cut is valid, and only a blocked one is not;
            False: whatever was found makes it invalid, as for a redacting scanner of LLM Guard.
    """

    def scan(self, prompt: str, output: str) -> tuple[str, bool, float]:
        """The text that may be shown, whether the original is valid, and its risk, 0 to 1."""
        return self._scan(output)


class InputScanner(_Scanner):
    """Scans what a user asks; arguments as for ``OutputScanner``."""

    def scan(self, prompt: str) -> tuple[str, bool, float]:
        """The text that may be passed on, whether the original is valid, and its risk, 0 to 1."""
        return self._scan(prompt)
