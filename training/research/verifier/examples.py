"""Candidates to learn from and to measure on: references, made faults, refused references, rated outputs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from guardrail.detectors.lexicon import Lexicon
from guardrail_training.data import normalised
from guardrail_training.records import TrainingRowError, read_records
from research.detection.labelled import fold
from research.pairs.mixture import Judged, Mixture, MixtureSettings, PairRow, build
from research.pairs.styles import american
from research.verifier.negatives import make_negatives
from research.verifier.settings import VerifierSettings

__all__ = ["FAULTS", "Example", "Examples", "gather", "read_ratings"]

FAULTS = ("hostile", "turned", "dropped", "added", "form")
"""What a reader finds wrong with a candidate, in the order of the network's outputs."""
RATINGS = ("accept", *FAULTS, "other")
# The reader's word for each kind of made fault and for each rule that refuses a reference; None: no one word
OF_KIND: Mapping[str, str | None] = {
    "opposite": "turned",
    "addition": "added",
    "dropped": "dropped",
    "hole": "form",
    "stand-in": None,
    "swapped": None,
    "hostile": "hostile",
    "person": "turned",
    "tense": "turned",
    "negation": "turned",
    "grammar": "form",
}
OF_RULE: Mapping[str, str | None] = {
    "copy": "hostile",
    "hostile": "hostile",
    "stand-in": None,
    "ungrammatical": "form",
    "person": "turned",
    "tense": "turned",
    "turned": "turned",
    "dropped": "dropped",
    "invented": "added",
}
BALANCE = (0.5, 2.0)  # bounds of what a made candidate counts so that all kinds count alike


@dataclass(frozen=True, slots=True)
class Example:
    """A candidate for a source, whether it is acceptable, and what is known to be wrong with it.

    ``faults`` has a number per fault: 0, 1, or None where nobody said. ``origin`` is "reference",
    "refused:RULE", "made:KIND" or "rated:RATING".
    """

    source: str = field(repr=False)
    candidate: str = field(repr=False)
    acceptable: bool
    faults: tuple[int | None, ...]
    origin: str
    weight: float = 1.0

    @property
    def key(self) -> str:
        """Equal for sources that differ in letter case, marks or British spelling alone."""
        return key_of(self.source)

    @property
    def is_rated(self) -> bool:
        """Whether a reader judged a model's output."""
        return self.origin.startswith("rated:")


@dataclass(frozen=True, slots=True)
class Examples:
    """What is learned from, and what no training sees: other sources."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Candidates per origin."""
        parts = {"train": self.train, "held out": self.held_out}
        return {
            name: dict(sorted(Counter(example.origin for example in part).items()))
            for name, part in parts.items()
        }


def gather(settings: VerifierSettings) -> Examples:
    """All candidates, split by source; sentences that nothing civil can carry are in neither part."""
    mixture = build(MixtureSettings(data=settings.data, own=settings.own, clean=0.0, seed=settings.seed))
    found = [
        *_references(mixture.rows),
        *_made(mixture.rows, settings),
        *_refused(mixture, settings),
        *read_ratings(settings.ratings, weight=settings.rated_weight),
    ]
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in found:
        parts[is_held_out(example.source, share=settings.held_out)].append(example)
    return Examples(*map(tuple, parts))


def key_of(source: str) -> str:
    """Equal for sources that differ in letter case, marks or British spelling alone."""
    return normalised(american(source))


def is_held_out(source: str, *, share: float) -> bool:
    """Whether a source is kept from training."""
    return fold(f"verifier:{key_of(source)}") < share


def _references(rows: Sequence[PairRow]) -> Iterator[Example]:
    for row in rows:
        for reference in row.references:
            yield Example(row.source, reference, True, (0,) * len(FAULTS), "reference")


def _made(rows: Sequence[PairRow], settings: VerifierSettings) -> list[Example]:
    """Made faults, the parts apart, so that none borrows words across; rare kinds count more."""
    made = []
    for held_out in (False, True):
        pairs = [row for row in rows if is_held_out(row.source, share=settings.held_out) is held_out]
        lexicon = Lexicon.shipped()
        for each in make_negatives(pairs, lexicon=lexicon, seed=settings.seed, per_pair=settings.per_pair):
            faults = _all_known(OF_KIND[each.kind])
            made.append(Example(each.source, each.candidate, False, faults, f"made:{each.kind}"))
    counts = Counter(example.origin for example in made)
    usual = len(made) / max(1, len(counts))
    low, high = BALANCE
    return [replace(example, weight=min(high, max(low, usual / counts[example.origin]))) for example in made]


def _refused(mixture: Mixture, settings: VerifierSettings) -> Iterator[Example]:
    """ParaDetox's references that a rule refused, for sources that somebody else rewrote well or not."""
    generator = random.Random(f"refused-{settings.seed}")
    for each in _by_rule(mixture.judged):
        if generator.random() < settings.refused_share:
            rule = str(each.rule)
            faults = _one_known(OF_RULE[rule])
            yield Example(
                each.source, each.reference, False, faults, f"refused:{rule}", settings.refused_weight
            )


def _by_rule(judged: Sequence[Judged]) -> Iterator[Judged]:
    """What a rule refused for its own sake, not for its source's."""
    return (each for each in judged if each.rule in OF_RULE)


def read_ratings(paths: Sequence[str], *, weight: float = 1.0) -> list[Example]:
    """Rated candidates, from rows with ``source``, ``candidate`` and ``rating``."""
    rated = []
    for path in paths:
        for row in read_records(path, fields={"source": str, "candidate": str, "rating": str}):
            rating = row["rating"]
            if rating not in RATINGS:
                raise TrainingRowError(
                    f"{path} row {row.number}: rating must be one of {', '.join(RATINGS)}, got {rating!r}"
                )
            accepted = rating == "accept"
            faults = (0,) * len(FAULTS) if accepted else _one_known(rating)
            rated.append(
                Example(row["source"], row["candidate"], accepted, faults, f"rated:{rating}", weight)
            )
    return rated


def _all_known(fault: str | None) -> tuple[int | None, ...]:
    """This fault and no other; nothing where it has no one name."""
    return tuple(None if fault is None else int(each == fault) for each in FAULTS)


def _one_known(fault: str | None) -> tuple[int | None, ...]:
    """This fault; nobody looked for others."""
    return tuple(1 if each == fault else None for each in FAULTS)
