"""A source and a candidate as one row of tokens, each of which knows whether the other text has it too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, cast

from guardrail.detectors.windows import LETTER_CASES, encode
from guardrail.text.alignment import common_prefix

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["KINDS", "PairTokens", "tokens_of_pair"]

_SAME, _MOVED, _CHANGED = range(3)
_STATES = 3
KINDS = 2 * _STATES * LETTER_CASES
"""Kinds of tokens: of the source or the candidate; same, moved or changed; by letter case."""
# Of a common beginning and end so many tokens are read if not all are.
_CONTEXT = 16
# Where more tokens than this lie between common beginning and end, all of them count as changed.
_MAX_ALIGNED = 160


@dataclass(frozen=True, slots=True)
class PairTokens:
    """Ids with special tokens, and the kind of each token, 0 to ``KINDS`` - 1."""

    ids: list[int]
    kinds: list[int]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class _Side:
    """Token ids and letter cases of one text."""

    ids: list[int]
    cases: list[int]

    def part(self, start: int, end: int) -> _Side:
        return _Side(self.ids[start:end], self.cases[start:end])


def tokens_of_pair(
    tokenizer: Tokenizer, source: str, candidate: str, *, max_tokens: int
) -> PairTokens | None:
    """``[CLS] source [SEP] candidate [SEP]``; None if that is more than ``max_tokens``.

    Before a pair is too long, the beginning and the end that both texts have in common are left out, but for
    the tokens next to what differs: nothing can be wrong with them. Letter case does not count.
    """
    old, new = (_side(tokenizer, text) for text in (source, candidate))
    first = common_prefix(old.ids, new.ids)
    last = common_prefix(old.ids[first:][::-1], new.ids[first:][::-1])
    if len(old.ids) + len(new.ids) + 3 > max_tokens:
        start, after = max(0, first - _CONTEXT), max(0, last - _CONTEXT)
        old, new = (side.part(start, len(side.ids) - after) for side in (old, new))
        first, last = first - start, last - after
    if len(old.ids) + len(new.ids) + 3 > max_tokens:
        return None
    old_states, new_states = _states(old.ids, new.ids, first=first, last=last)
    cls, sep = (cast("int", tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]"))
    kinds = [
        (side * _STATES + state) * LETTER_CASES + case
        for side, (states, cases) in enumerate(((old_states, old.cases), (new_states, new.cases)))
        for state, case in zip(states, cases, strict=True)
    ]
    place = len(old.ids)
    return PairTokens(
        [cls, *old.ids, sep, *new.ids, sep],
        [0, *kinds[:place], 0, *kinds[place:], 0],
    )


def _side(tokenizer: Tokenizer, text: str) -> _Side:
    encoding = encode(tokenizer, text)
    return _Side(encoding.ids.tolist(), encoding.cases.tolist())


def _states(old: list[int], new: list[int], *, first: int, last: int) -> tuple[list[int], list[int]]:
    """For each token of both whether the other text has it in the same place, elsewhere, or nowhere."""
    old_states, new_states = ([_SAME] * len(ids) for ids in (old, new))
    end, new_end = len(old) - last, len(new) - last
    for tag, a, b, c, d in _opcodes(old[first:end], new[first:new_end]):
        if tag != "equal":
            old_states[first + a : first + b] = [_CHANGED] * (b - a)
            new_states[first + c : first + d] = [_CHANGED] * (d - c)
    moved = Counter(token for token, state in zip(old, old_states, strict=True) if state)
    moved &= Counter(token for token, state in zip(new, new_states, strict=True) if state)
    for ids, states in ((old, old_states), (new, new_states)):
        left = moved.copy()
        for place, token in enumerate(ids):
            if states[place] and left[token]:
                left[token] -= 1
                states[place] = _MOVED
    return old_states, new_states


def _opcodes(old: list[int], new: list[int]) -> Sequence[tuple[str, int, int, int, int]]:
    if max(len(old), len(new)) > _MAX_ALIGNED:
        return [("replace", 0, len(old), 0, len(new))]
    return SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
