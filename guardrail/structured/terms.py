"""Short strings that come with every value, such as keys, and need not be read again."""

from __future__ import annotations

from guardrail.outcome import Outcome

__all__ = ["Terms"]

TERM_LENGTH = 64
TERMS = 4096


class Terms:
    """Short strings outside prose that were found clean: keys, types and model names come with every value.

    At most TERMS strings of TERM_LENGTH characters; a verdict depends on nothing but the string, so reading
    one again would say the same.
    """

    def __init__(self) -> None:
        self._clean: set[str] = set()

    def __contains__(self, text: str) -> bool:
        return text in self._clean

    def learn(self, text: str, outcome: Outcome) -> None:
        """Takes note of a string that passed without any doubt."""
        if len(text) > TERM_LENGTH or outcome.edits or outcome.degraded:
            return
        if len(self._clean) >= TERMS:
            self._clean.clear()
        self._clean.add(text)
