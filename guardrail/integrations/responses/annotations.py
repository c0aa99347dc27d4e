"""Annotations of a text that was changed: moved to where their text stands now, or dropped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from guardrail.integrations.strict_json import JsonObject

__all__ = ["Offsets"]

MAX_COMPARED = 4000
"""Words on either side that are compared; annotations in a longer changed part are dropped."""
_WORD = re.compile(r"\w+|\W")
INSERTED = ("file_citation",)
"""Annotations whose ``index`` is a place in the text; that of a file path counts files."""


class Offsets:
    """Where characters of a text stand in the text that it became."""

    def __init__(self, before: str, after: str) -> None:
        self._kept = list(_kept(before, after))

    def moved(self, annotation: JsonObject) -> JsonObject | None:
        """The annotation as it fits the new text; None if what it marks is not there as it was."""
        start, end = annotation.get("start_index"), annotation.get("end_index")
        if isinstance(start, int) and isinstance(end, int):
            shift = self._shift(start, end)
            return (
                None
                if shift is None
                else annotation | {"start_index": start + shift, "end_index": end + shift}
            )
        index = annotation.get("index")
        if annotation.get("type") in INSERTED and isinstance(index, int):
            shift = self._shift(index, index)
            return None if shift is None else annotation | {"index": index + shift}
        return annotation

    def _shift(self, start: int, end: int) -> int | None:
        return next(
            (there - here for here, there, size in self._kept if here <= start <= end <= here + size), None
        )


def _kept(before: str, after: str) -> list[tuple[int, int, int]]:
    """Stretches that stand in both: offset before, offset after, length; in order."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    head = _common(old, new)
    tail = min(_common(old[::-1], new[::-1]), len(old) - head, len(new) - head)
    inner_old, inner_new = old[head : len(old) - tail], new[head : len(new) - tail]
    blocks = [(0, 0, head), (len(old) - tail, len(new) - tail, tail)]
    if max(len(inner_old), len(inner_new)) <= MAX_COMPARED:
        matcher = SequenceMatcher(None, inner_old, inner_new, autojunk=False)
        inner = [(a + head, b + head, size) for a, b, size in matcher.get_matching_blocks() if size]
        blocks[1:1] = inner
    starts_old, starts_new = _starts(old), _starts(new)
    return [
        (starts_old[a], starts_new[b], starts_old[a + size] - starts_old[a]) for a, b, size in blocks if size
    ]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words two texts have in common from the start on."""
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _starts(words: Sequence[str]) -> list[int]:
    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word))
    return starts
