"""Chunks that repeat the text so far, which would be shown again and again."""

from __future__ import annotations

from guardrail.errors import UsageError

__all__ = ["Growth"]

MIN_REPEATED = 16
"""Characters that chunks must have repeated from those before, so that it is not chance."""
CURSORS = "▌▍▎▏▋▊▉█▮●|_"
"""Marks that stand for a cursor at the end of a text that goes on."""


class Growth:
    """Notices chunks that repeat the text so far, as the generators of Gradio yield them."""

    def __init__(self) -> None:
        self._before = ""
        self._repeated = 0

    def see(self, chunk: object) -> None:
        """UsageError once chunks have repeated those before for too long, TypeError for no text."""
        if not isinstance(chunk, str):
            kind = type(chunk).__name__
            del chunk  # this frame is part of the traceback
            raise TypeError(
                "expected chunks of str, or of chat completions (choices[].delta, or delta beside text), "
                f"got {kind}: yield one of these"
            )
        before = self._before if chunk.startswith(self._before) else self._before.rstrip(CURSORS)
        if len(chunk) > len(self._before) and before.strip() and chunk.startswith(before):
            self._repeated += len(before)
        elif chunk != self._before:
            self._repeated = 0
        if chunk:
            self._before = chunk
        if self._repeated >= MIN_REPEATED:
            raise UsageError(
                "each chunk starts with the one before, so they repeat the text so far, as Gradio wants it: "
                "moderate a generator that yields what is new only, and join the pieces behind it"
            )
