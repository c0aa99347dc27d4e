"""Wrong candidates made of good pairs, one kind of fault each, for a verifier to learn from.

A fault is put into a reference, or the source is mended badly. What comes out never has the letters of a
reference. The same pairs and seed give the same candidates; a pair's own faults do not depend on the others,
but for those that take words from them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from guardrail.errors import UsageError
from guardrail.protocols import Detector
from guardrail_training.data import normalised
from research.pairs.mixture import PairRow
from research.pairs.words import stem, words
from research.verifier.faults import MAKERS, Others, Subject

__all__ = ["KINDS", "Negative", "make_negatives"]

KINDS = tuple(MAKERS)
"""What can be wrong with a candidate."""
TRIES = 3
SIMILAR_SHARED = 2
COMMON = 200  # a stem in more rows than this tells nothing about what a row is about


@dataclass(frozen=True, slots=True)
class Negative:
    """A candidate that must not be released, and the kind of its fault."""

    source: str = field(repr=False)
    candidate: str = field(repr=False)
    kind: str


def make_negatives(
    pairs: Sequence[PairRow], *, lexicon: Detector, seed: int, per_pair: int = 4
) -> Iterator[Negative]:
    """Up to ``per_pair`` wrong candidates for each pair, each of another kind, in the order of the pairs.

    Insults that are put in are those which the word list finds in the sources.
    """
    if per_pair < 1:
        raise UsageError(f"per_pair must be at least 1, got {per_pair}")
    others = _Corpus(pairs, lexicon)
    for place, pair in enumerate(pairs):
        generator = random.Random(f"negatives-{seed}-{pair.source}")
        yield from _of_pair(pair, place, others, generator, per_pair)


def _of_pair(
    pair: PairRow, place: int, others: _Corpus, generator: random.Random, count: int
) -> Iterator[Negative]:
    taken = {normalised(text) for text in pair.references}
    kinds = list(MAKERS)
    generator.shuffle(kinds)
    made = 0
    for kind in kinds:
        if made == count:
            return
        for _ in range(TRIES):
            subject = Subject(pair.source, generator.choice(pair.references), place)
            candidate = MAKERS[kind](subject, others, generator)
            if candidate is None or not normalised(candidate) or normalised(candidate) in taken:
                continue
            taken.add(normalised(candidate))
            yield Negative(pair.source, " ".join(candidate.split()), kind)
            made += 1
            break


class _Corpus(Others):
    """What the other pairs lend: their references, and insults of their sources."""

    def __init__(self, pairs: Sequence[PairRow], lexicon: Detector) -> None:
        self._pairs = pairs
        self._lexicon = lexicon

    @cached_property
    def insults(self) -> Sequence[str]:
        sources = [pair.source for pair in self._pairs]
        found = {
            source[span.start : span.end].casefold()
            for source, verdict in zip(sources, self._lexicon.detect(sources), strict=True)
            for span in verdict.spans
        }
        return sorted(word for word in found if word.isalpha())

    def listed(self, text: str) -> list[tuple[int, int]]:
        return [(span.start, span.end) for span in self._lexicon.detect([text])[0].spans]

    def reference(self, generator: random.Random, *, but: int) -> str | None:
        if len(self._pairs) < 2:
            return None
        place = generator.randrange(len(self._pairs) - 1)
        return generator.choice(self._pairs[place + (place >= but)].references)

    def similar(self, subject: Subject, generator: random.Random) -> str | None:
        shared: dict[int, int] = defaultdict(int)
        for each in {stem(word.key) for word in words(subject.source) if word.is_content}:
            found = self._by_stem.get(each, ())
            if len(found) <= COMMON:
                for place in found:
                    shared[place] += 1
        shared.pop(subject.place, None)
        if not shared:
            return None
        enough = min(SIMILAR_SHARED, max(shared.values()))
        place = generator.choice(sorted(place for place, count in shared.items() if count >= enough))
        return generator.choice(self._pairs[place].references)

    @cached_property
    def _by_stem(self) -> Mapping[str, Sequence[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        for place, pair in enumerate(self._pairs):
            for each in {stem(word.key) for word in words(pair.source) if word.is_content}:
                found[each].append(place)
        return found
