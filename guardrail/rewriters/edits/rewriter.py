"""Rewriting by the edit tagger alone: in milliseconds, without torch and without a base, where it is sure."""

from __future__ import annotations

from collections.abc import Sequence

from guardrail.errors import UsageError
from guardrail.rewriters.edits.tagger import Tagger

__all__ = ["MIN_CONFIDENCE", "EditRewriter"]

MIN_CONFIDENCE = -0.4
"""From which an edit is proposed without a language model that would notice what it spoils.

Of 81 edits from here on a reader accepts 77 (docs/decisions/0049-edit-tagger.md).
"""


class EditRewriter:
    """Proposes edits of which the tagger is sure; there is at most one for most segments, and often none.

    Args:
        tagger: The tagger; None: the shipped one.
        min_confidence: Minimum log-probability, 0 or less, of all the tags of an edit together.

    Raises:
        UsageError: For a ``min_confidence`` above 0.
    """

    def __init__(self, tagger: Tagger | None = None, *, min_confidence: float = MIN_CONFIDENCE) -> None:
        if not min_confidence <= 0:
            raise UsageError(f"min_confidence is a log-probability, 0 or less, got {min_confidence}")
        self._tagger = tagger or Tagger.shipped()
        self._min_confidence = min_confidence

    def rewrite(self, segments: Sequence[str], n: int) -> list[list[str]]:
        """Up to ``n`` edits per segment, the most sure first; see ``Rewriter.rewrite``."""
        if n < 1:
            raise UsageError(f"the number of candidates must be 1 or more, got {n}")
        return [
            [edit.text for edit in edits if edit.confidence >= self._min_confidence][:n]
            for edits in self._tagger.propose(segments)
        ]
