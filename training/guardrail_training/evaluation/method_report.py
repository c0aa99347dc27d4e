"""How adapters of several methods compare: greedy rewrites of the same sentences, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardrail_training.evaluation.rewriting_report import SystemMeasurements, differences
from guardrail_training.metrics.fluency import Surprise, perplexity
from guardrail_training.metrics.statistics import RESAMPLES, Mean, bootstrap_mean

__all__ = ["MethodDifference", "MethodFigures", "Ratio", "compare_methods"]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two perplexities with its 95 % percentile bootstrap interval over sentences."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MethodDifference:
    """How much higher a method's J (first reference) is than another's, paired by sentence, by judge.

    ``lower`` names the judge that favours the method least, which counts.
    """

    over: str
    j: Mapping[str, Mean]
    lower: str


@dataclass(frozen=True, slots=True)
class MethodFigures:
    """One method's figures with intervals, where the block of its row ``system`` has none.

    ``similarity`` is by the encoder that counts, ``chrf`` against the first reference, both in 0..1;
    ``perplexity_ratio`` is the outputs' over their sources', None if it was not measured or an infinite
    one. ``difference`` is None for the method that the others are compared with.
    """

    method: str
    system: str
    similarity: Mean
    chrf: Mean
    perplexity_ratio: Ratio | None
    difference: MethodDifference | None


def compare_methods(rows: Mapping[str, SystemMeasurements], *, seed: int) -> tuple[MethodFigures, ...]:
    """The figures of every method by name; the others are compared with the first."""
    first = next(iter(rows))
    return tuple(
        MethodFigures(
            method=name,
            system=measured.system.name,
            similarity=bootstrap_mean(next(iter(measured.similarity.values())), seed=seed),
            chrf=bootstrap_mean(measured.overlap.chrf_first, seed=seed),
            perplexity_ratio=_perplexity_ratio(measured, seed=seed),
            difference=None if name == first else _difference(measured, rows[first], over=first, seed=seed),
        )
        for name, measured in rows.items()
    )


def _difference(
    method: SystemMeasurements, first: SystemMeasurements, *, over: str, seed: int
) -> MethodDifference:
    found = differences(method, first, seed=seed)
    return MethodDifference(over=over, j=found, lower=min(found, key=lambda judge: found[judge].value))


def _perplexity_ratio(measured: SystemMeasurements, *, seed: int) -> Ratio | None:
    outputs, sources = measured.surprise, measured.source_surprise
    if outputs is None or sources is None:
        return None
    count = len(measured.system.rows)
    value = _ratio(outputs, sources, np.arange(count))
    if not math.isfinite(value):
        return None
    generator = np.random.default_rng(seed)
    drawn = [_ratio(outputs, sources, generator.integers(0, count, count)) for _ in range(RESAMPLES)]
    # Where most outputs are blank, some resample has none that is not.
    low, high = np.quantile([each for each in drawn if math.isfinite(each)], [0.025, 0.975])
    return Ratio(value=value, low=float(low), high=float(high))


def _ratio(outputs: Surprise, sources: Surprise, rows: npt.NDArray[np.int64]) -> float:
    after, before = (
        perplexity(Surprise(nats=each.nats[rows], tokens=each.tokens[rows])) for each in (outputs, sources)
    )
    return after / before
