"""Measures of a detector: how it ranks, what it flags, what it lets be, how its embedding has moved."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from guardrail.outcome import LABELS, Verdict
from guardrail.protocols import Embedder
from guardrail_training.detection.corpora import Labelled
from guardrail_training.detection.hard_negatives import Templates
from guardrail_training.evaluation.detection_sets import LabelledSet
from guardrail_training.evaluation.metrics import Ranking, Rate, rank_correlation, ranking, wilson_rate
from guardrail_training.evaluation.similarity import cosines

__all__ = [
    "Correlation",
    "EmbeddingDetector",
    "SetRanking",
    "embedding_correlation",
    "flag_rates",
    "pooled_rankings",
    "rank_sets",
    "template_set",
]

TEMPLATE_SENTENCES = 2000


class EmbeddingDetector(Protocol):
    """A detector that embeds, as the shipped one does."""

    def detect(self, texts: Sequence[str]) -> list[Verdict]: ...

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class SetRanking:
    """A detector's figures on one source and label.

    For ``toxicity`` a text counts as flagged where the verdict says so; for another label where that label's
    own score reaches the default threshold.
    """

    source: str
    label: str
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of two encoders' cosines over ``pairs`` sentence pairs of one kind."""

    kind: str
    pairs: int
    spearman: float


def rank_sets(
    detector: EmbeddingDetector, sets: Sequence[LabelledSet], *, threshold: float
) -> list[SetRanking]:
    """Ranking figures per set whose label the detector scores; no text is judged twice."""
    distinct = list(dict.fromkeys(text for each in sets for text in each.texts))
    verdicts = dict(zip(distinct, detector.detect(distinct), strict=True))
    return [
        _rank(each, [verdicts[text] for text in each.texts], threshold=threshold)
        for each in sets
        if each.label in verdicts[each.texts[0]].scores
    ]


def _rank(each: LabelledSet, verdicts: Sequence[Verdict], *, threshold: float) -> SetRanking:
    scores = [verdict.scores[each.label] for verdict in verdicts]
    if each.label == "toxicity":
        flagged = [verdict.flagged for verdict in verdicts]
    else:
        flagged = [score >= threshold for score in scores]
    return SetRanking(each.source, each.label, ranking(each.positive, scores, flagged=flagged))


def flag_rates(detector: EmbeddingDetector, sets: Mapping[str, Sequence[str]]) -> dict[str, Rate]:
    """The share of each set that is flagged at the default threshold; empty sets are left out."""
    rates = {}
    for name, texts in sets.items():
        if texts:
            verdicts = detector.detect(list(texts))
            rates[name] = wilson_rate(sum(verdict.flagged for verdict in verdicts), len(verdicts))
    return rates


def template_set(
    texts: Mapping[str, Sequence[Labelled]], *, held_out: float, seed: int, count: int = TEMPLATE_SENTENCES
) -> LabelledSet:
    """Sentences from the project's own templates that training never saw, filled with dev sentences."""
    pools: dict[str, list[Labelled]] = {}
    for rows in texts.values():
        for row in rows:
            pools.setdefault(row.source, []).append(row)
    _, apart = Templates.load().split(held_out=held_out)
    generator = random.Random(f"templates-{seed}")
    drawn = [apart.draw(generator, pools) for _ in range(count)]
    toxicity = LABELS.index("toxicity")
    judged = {row.text: share >= 0.5 for row in drawn if (share := row.labels[toxicity]) is not None}
    return LabelledSet("templates", "toxicity", tuple(judged), tuple(judged.values()))


def pooled_rankings(
    detector: EmbeddingDetector, sets: Sequence[LabelledSet], templates: LabelledSet, *, threshold: float
) -> dict[str, SetRanking]:
    """Toxicity over all sources together, without and with the template sentences, and of those alone."""
    toxicity = [each for each in sets if each.label == "toxicity"]
    pooled = _pool("all sources", toxicity)
    chosen = {"without templates": pooled, "with templates": _pool("all", [pooled, templates])}
    ranked = rank_sets(detector, [*chosen.values(), templates], threshold=threshold)
    return dict(zip([*chosen, "templates alone"], ranked, strict=True))


def _pool(name: str, sets: Sequence[LabelledSet]) -> LabelledSet:
    judged = dict(pair for each in sets for pair in zip(each.texts, each.positive, strict=True))
    return LabelledSet(name, "toxicity", tuple(judged), tuple(judged.values()))


def embedding_correlation(
    detector: EmbeddingDetector, original: Embedder, pairs: Sequence[tuple[str, str]], *, kind: str
) -> Correlation:
    """How far the detector's cosines order sentence pairs as the original encoder's do."""
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ours, theirs = (cosines(encoder, first, second) for encoder in (detector, original))
    return Correlation(kind=kind, pairs=len(pairs), spearman=rank_correlation(ours, theirs))
