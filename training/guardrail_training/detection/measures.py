"""Measures of a detector on labelled sets: how it ranks, what it flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from guardrail.outcome import Verdict
from guardrail.protocols import Detector
from guardrail_training.detection.dev_sets import LabelledSet
from guardrail_training.metrics.statistics import Ranking, Rate, ranking, wilson_rate

__all__ = ["SetRanking", "flag_rates", "rank_sets"]


@dataclass(frozen=True, slots=True)
class SetRanking:
    """A detector's figures on one source and label.

    For ``toxicity`` a text counts as flagged where the verdict says so; for another label where that label's
    own score reaches the default threshold.
    """

    source: str
    label: str
    ranking: Ranking


def rank_sets(detector: Detector, sets: Sequence[LabelledSet], *, threshold: float) -> list[SetRanking]:
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


def flag_rates(detector: Detector, sets: Mapping[str, Sequence[str]]) -> dict[str, Rate]:
    """The share of each set that is flagged at the default threshold; empty sets are left out."""
    rates = {}
    for name, texts in sets.items():
        if texts:
            verdicts = detector.detect(list(texts))
            rates[name] = wilson_rate(sum(verdict.flagged for verdict in verdicts), len(verdicts))
    return rates
