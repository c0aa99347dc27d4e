"""Measures of a detector on labelled sets: how it ranks, what it flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from guardrail.outcome import Verdict
from guardrail.policy import USES, Policy, Use
from guardrail.protocols import Detector
from guardrail_training.metrics.statistics import (
    Mean,
    Ranking,
    Rate,
    auc_interval,
    expected_calibration_error,
    ranking,
    wilson_rate,
)
from research.detection.dev_sets import LabelledSet

__all__ = ["SetRanking", "TaskFigures", "flag_rates", "rank_sets", "span_f1", "task_figures"]


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


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """What a detector makes of one source's question: AUC, calibration, and the shares that presets flag."""

    task: str
    label: str
    positives: int
    negatives: int
    auc: Mean
    calibration_error: float
    recall: dict[str, Rate]
    false_alarms: dict[str, Rate]


def task_figures(detector: Detector, task: LabelledSet, *, seed: int) -> TaskFigures:
    """Figures of one set, by the score of its label and by the presets' decisions."""
    verdicts = detector.detect(list(task.texts))
    scores = [verdict.scores[task.label] for verdict in verdicts]
    shares: dict[bool, dict[str, Rate]] = {True: {}, False: {}}
    for use in USES:
        policy = Policy.preset(use)
        for side in shares:
            flagged = [
                policy.flags(verdict)
                for verdict, positive in zip(verdicts, task.positive, strict=True)
                if positive is side
            ]
            shares[side][use] = wilson_rate(sum(flagged), len(flagged))
    return TaskFigures(
        task=task.source,
        label=task.label,
        positives=sum(task.positive),
        negatives=len(task.positive) - sum(task.positive),
        auc=auc_interval(task.positive, scores, seed=seed),
        calibration_error=expected_calibration_error([float(each) for each in task.positive], scores),
        recall=shares[True],
        false_alarms=shares[False],
    )


def span_f1(detector: Detector, texts: Sequence[str], spans: Sequence[Sequence[tuple[int, int]]]) -> float:
    """Mean F1 by characters of a detector's spans against marked ones, 1 if both are empty."""
    values = []
    for verdict, marked in zip(detector.detect(list(texts)), spans, strict=True):
        found = {place for span in verdict.spans for place in range(span.start, span.end)}
        wanted = {place for start, end in marked for place in range(start, end)}
        total = len(found) + len(wanted)
        values.append(2 * len(found & wanted) / total if total else 1.0)
    return float(np.mean(values))


def flag_rates(
    detector: Detector, sets: Mapping[str, Sequence[str]], *, use: Use = "assistant"
) -> dict[str, Rate]:
    """The share of each set that the preset for a use flags; empty sets are left out."""
    policy = Policy.preset(use)
    rates = {}
    for name, texts in sets.items():
        if texts:
            verdicts = detector.detect(list(texts))
            rates[name] = wilson_rate(sum(map(policy.flags, verdicts)), len(verdicts))
    return rates
