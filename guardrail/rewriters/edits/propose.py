"""Candidates that keep what lies outside the toxic stretch: deletions and substitutions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from guardrail.outcome import Span
from guardrail.rewriters.edits.patterns import turns
from guardrail.rewriters.edits.phrases import Phrase, cuts, phrases
from guardrail.rewriters.edits.repair import Change, apply
from guardrail.rewriters.edits.substitutions import MAX_WORDS, SubstitutionTable
from guardrail.text.protected import find, protected_spans

__all__ = ["KEPT", "MAX_EDITS", "edits"]

MAX_EDITS = 20
"""Candidates for one segment: each is read once by the model."""
MAX_PHRASES = 4
MAX_OPTIONS = 10
MAX_INSTEAD = 3
KEPT = ("number", "url", "address", "code", "placeholder", "mention")
"""What no edit may take away."""
_WORD = re.compile(r"[^\W_]+(?:['’*@$!#-]+[^\W_]+)*\$*")


def edits(text: str, spans: Sequence[Span], table: SubstitutionTable) -> list[str]:
    """Different texts without the toxic words of ``spans``, the smallest changes first; none has a hole."""
    options = [_options(text, phrase, table)[:MAX_OPTIONS] for phrase in _open_phrases(text, spans)]
    results: dict[str, None] = {}
    for changes in _combined(options):
        for both_commas in (False, True):
            edited = apply(text, changes, both_commas=both_commas)
            if edited is not None and _WORD.search(edited) and edited != text:
                results[edited] = None
        if len(results) >= MAX_EDITS:
            break
    return list(results)[:MAX_EDITS]


def _open_phrases(text: str, spans: Sequence[Span]) -> list[Phrase]:
    """The toxic phrases outside what must not be touched: code, addresses, quotations."""
    closed = protected_spans(text)
    toxic = phrases(text, spans)
    return [p for p in toxic if not any(c.start < p.end and p.start < c.end for c in closed)][:MAX_PHRASES]


def _options(text: str, phrase: Phrase, table: SubstitutionTable) -> list[Change]:
    """What may be done about one phrase, best guesses first."""
    if not _WORD.search(text[: phrase.head] + " " + text[phrase.end :]):
        return []  # nothing would be left of what was said
    substituted = list(_substitutions(text, phrase, table))
    cut = cuts(text, phrase)
    turned = list(turns(text, phrase))
    # One of each kind in turn: what is likely is for the model to say.
    mixed = itertools.chain.from_iterable(itertools.zip_longest(cut, turned, substituted))
    untouchable = [item.span for kind in KEPT for item in find(kind, text)]
    return [
        change
        for change in dict.fromkeys(mixed)
        if change is not None and not any(change.start < k.end and k.start < change.end for k in untouchable)
    ]


def _substitutions(text: str, phrase: Phrase, table: SubstitutionTable) -> Iterator[Change]:
    """Of the listed stretches that cover the phrase the longest first, then each of its words by itself."""
    words = [m for m in _WORD.finditer(text) if m.start() < phrase.end + 24 and m.end() > phrase.head - 24]
    covering = [
        (i, j)
        for i in range(len(words))
        for j in range(i, min(i + MAX_WORDS, len(words)))
        if words[i].start() <= phrase.start and words[j].end() >= phrase.end
    ]
    for i, j in sorted(covering, key=lambda pair: pair[0] - pair[1]):
        yield from _listed(text, words[i].start(), words[j].end(), table)
    if not covering or len(text[phrase.start : phrase.end].split()) > 1:
        inside = [w for w in words if w.start() >= phrase.start and w.end() <= phrase.end]
        for word in inside:
            for change in _listed(text, word.start(), word.end(), table):
                rest = text[phrase.start : word.start()] + change.instead + text[word.end() : phrase.end]
                yield Change(phrase.start, phrase.end, re.sub(r"[ \t]+", " ", rest).strip())


def _listed(text: str, start: int, end: int, table: SubstitutionTable) -> Iterator[Change]:
    before = text[:start].rstrip(" \t").rpartition(" ")[2]
    for instead in table.instead_of(" ".join(text[start:end].split()), before=before, limit=MAX_INSTEAD):
        original = text[start:end]
        if original.isupper() and len(original) > 1:
            instead = instead.upper()
        elif original[:1].isupper() or instead.startswith(("i ", "i'")):
            instead = instead[:1].upper() + instead[1:]
        yield Change(start, end, instead)


def _combined(options: Sequence[Sequence[Change]]) -> Iterator[tuple[Change, ...]]:
    """One option for each phrase, the best ranks first; if two overlap, the wider one counts."""
    if not options or not all(options):
        return
    ranks = itertools.product(*(range(len(changes)) for changes in options))
    for numbers_of_options in sorted(ranks, key=lambda numbers: (sum(numbers), numbers)):
        picked = [options[i][number] for i, number in enumerate(numbers_of_options)]
        if (merged := _disjoint(picked)) is not None:
            yield merged


def _disjoint(changes: Sequence[Change]) -> tuple[Change, ...] | None:
    disjoint: list[Change] = []
    for change in sorted(changes, key=lambda c: (c.start, -c.end)):
        if disjoint and change.start < disjoint[-1].end:
            if change.end > disjoint[-1].end:
                return None
            continue  # it lies within what is changed already
        disjoint.append(change)
    return tuple(disjoint)
