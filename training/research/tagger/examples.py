"""Pairs as tags of the source's words, and the phrases that tags may name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from guardrail.rewriters.edits.tags import DELETE, KEEP, UNKNOWN, UNKNOWN_APPEND, words
from research.pairs.mixture import MixtureSettings, PairRow, build, hand_written
from research.tagger.settings import TaggerSettings
from research.verifier.examples import is_held_out, key_of

__all__ = [
    "Alignment",
    "TaggedExample",
    "TaggedExamples",
    "aligned",
    "gather",
    "held_out_pairs",
    "phrase_labels",
    "tags_of",
]

ALWAYS = (KEEP, DELETE, UNKNOWN, UNKNOWN_APPEND)


@dataclass(frozen=True, slots=True)
class Alignment:
    """Words ``start`` to ``end`` of a source become ``phrase``, in small letters; none are an addition."""

    start: int
    end: int
    phrase: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class TaggedExample:
    """A source with the label of each of its words."""

    source: str = field(repr=False)
    labels: tuple[str, ...] = field(repr=False)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class TaggedExamples:
    """What is learned from, the labels that occur in it, and pairs that no training sees."""

    train: tuple[TaggedExample, ...]
    held_out: tuple[PairRow, ...]
    labels: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Texts to learn from, those among them of which no label is unknown, and held-out pairs."""
        unknown = {UNKNOWN, UNKNOWN_APPEND}
        return {
            "train": len(self.train),
            "covered": sum(not unknown & {*example.labels} for example in self.train),
            "held_out": len(self.held_out),
        }


def gather(settings: TaggerSettings) -> TaggedExamples:
    """All pairs that a rewriter is trained on; a share of the hand-written ones is held out, as written."""
    mixture = build(
        MixtureSettings(data=settings.data, own=settings.own, clean=settings.clean, seed=settings.seed)
    )
    held_out = held_out_pairs(settings)
    closed = {key_of(text) for row in held_out for text in row.texts}
    rows = [row for row in mixture.rows if key_of(row.source) not in closed]
    labels = (*ALWAYS, *phrase_labels(rows, count=settings.phrases))
    known = frozenset(labels)
    train = [
        TaggedExample(
            row.source,
            tags_of(row, known=known),
            settings.paradetox_weight if row.origin == "paradetox" else 1.0,
        )
        for row in rows
    ]
    return TaggedExamples(tuple(train), tuple(held_out), labels)


def held_out_pairs(settings: TaggerSettings) -> list[PairRow]:
    """The hand-written pairs that no training with these settings sees."""
    pairs = hand_written(settings.data, settings.own)
    return [pair for pair in pairs if is_held_out(pair.source, share=settings.held_out)]


def aligned(source: str, reference: str) -> list[Alignment]:
    """The words that differ, letter case aside."""
    old, new = (_words(text) for text in (source, reference))
    return [
        Alignment(a, b, tuple(new[c:d]))
        for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        if kind != "equal"
    ]


def phrase_labels(rows: Sequence[PairRow], *, count: int) -> list[str]:
    """The labels of the phrases that are needed most often, by the reference with the fewest new words."""
    found: Counter[str] = Counter()
    for row in rows:
        alignments = [aligned(row.source, reference) for reference in row.references]
        fewest = min(alignments, key=lambda each: sum(len(one.phrase) for one in each))
        found.update(_label(one) for one in fewest if one.phrase)
    return [label for label, _ in sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:count]]


def tags_of(row: PairRow, *, known: frozenset[str]) -> tuple[str, ...]:
    """The labels of a source's words, for the reference that they say best, then with fewest changes."""
    found = [_tagged(row.source, aligned(row.source, reference), known) for reference in row.references]
    return min(found, key=_cost)


def _cost(labels: Sequence[str]) -> tuple[int, int]:
    counted: Mapping[str, int] = Counter(labels)
    return counted[UNKNOWN] + counted[UNKNOWN_APPEND], len(labels) - counted[KEEP]


def _tagged(source: str, alignments: Sequence[Alignment], known: frozenset[str]) -> tuple[str, ...]:
    labels = [KEEP] * len(_words(source))
    for each in alignments:
        label = _label(each)
        if each.start < each.end:
            labels[each.start : each.end] = [DELETE] * (each.end - each.start)
            if each.phrase:
                labels[each.start] = label if label in known else UNKNOWN
        elif labels:  # behind a word that is kept; before the first there is none
            is_sayable = each.start > 0 and label in known and labels[each.start - 1] == KEEP
            labels[max(0, each.start - 1)] = label if is_sayable else UNKNOWN_APPEND
    return tuple(labels)


def _label(alignment: Alignment) -> str:
    name = "replace" if alignment.start < alignment.end else "append"
    return f"{name} {' '.join(alignment.phrase)}"


def _words(text: str) -> list[str]:
    return [text[word.start : word.end].lower() for word in words(text)]
