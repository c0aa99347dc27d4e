"""Guesses how a rewrite continues: most of it is copied from its source.

Prompt lookup (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding): what follows the last
words of the rewrite in the source is offered as draft. A wrong guess costs time and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["draft"]

MAX_MATCH = 4
MAX_REPLACED = 4


def draft(source: Sequence[int], written: Sequence[int], *, count: int) -> Sequence[int]:
    """Up to ``count`` tokens of the source that may come after what is written."""
    if not written:
        return source[:count]
    # Tokens behind the last common ones stand for as many of the source: one word is replaced by another.
    for replaced in range(min(MAX_REPLACED, len(written) - 1) + 1):
        place = _place_after(source, written[: len(written) - replaced])
        if place is not None:
            return source[place + replaced : place + replaced + count]
    return ()


def _place_after(source: Sequence[int], written: Sequence[int]) -> int | None:
    """Where the source continues after its longest match with the end of what is written, at the likeliest
    place if there are several: the one nearest to where the rewrite stands itself.
    """
    best, longest = None, 0
    for end in range(1, len(source) + 1):
        length = 0
        while (
            length < min(MAX_MATCH, end, len(written))
            and source[end - 1 - length] == written[len(written) - 1 - length]
        ):
            length += 1
        if not length or length < longest:
            continue
        if best is None or length > longest or abs(end - len(written)) < abs(best - len(written)):
            best, longest = end, length
    return best
