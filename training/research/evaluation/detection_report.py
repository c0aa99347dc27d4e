"""What only a report asks of a detector: sources pooled, templates, judged sentences, its embedding."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardrail.outcome import LABELS
from guardrail.protocols import Detector, Embedder
from guardrail_training.evaluation.judges import Judge
from guardrail_training.evaluation.similarity import cosines
from guardrail_training.metrics.statistics import rank_correlation
from research.detection.corpora import Labelled
from research.detection.dev_sets import LabelledSet
from research.detection.hard_negatives import Templates
from research.detection.measures import SetRanking, rank_sets

__all__ = [
    "Correlation",
    "embedding_correlation",
    "judged_clean",
    "pooled_rankings",
    "template_set",
]

TEMPLATE_SENTENCES = 2000


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of two encoders' cosines over ``pairs`` sentence pairs of one kind."""

    kind: str
    pairs: int
    spearman: float


def judged_clean(texts: Sequence[str], *, judges: Sequence[Judge]) -> tuple[str, ...]:
    """The texts that every judge calls clean, in their order."""
    agreed = np.all([judge.finds_clean(texts) for judge in judges], axis=0)
    return tuple(text for text, kept in zip(texts, agreed, strict=True) if kept)


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
    detector: Detector, sets: Sequence[LabelledSet], templates: LabelledSet, *, threshold: float
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
    detector: Embedder, original: Embedder, pairs: Sequence[tuple[str, str]], *, kind: str
) -> Correlation:
    """How far the detector's cosines order sentence pairs as the original encoder's do."""
    first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ours, theirs = (cosines(encoder, first, second) for encoder in (detector, original))
    return Correlation(kind=kind, pairs=len(pairs), spearman=rank_correlation(ours, theirs))
