"""Measures of rewriting systems: style accuracy, meaning, overlap with people's rewrites, and all three in
one.

The joint measure is J = mean over sentences of STA x SIM x chrF (Dale et al. 2021 with chrF in place of
fluency, as in TextDetox 2024), where STA is 1 if the judge calls the output clean and else 0, SIM is the
cosine of source and output (not below 0), and chrF is in 0..1. It is given against the first reference, which
alone compares with the row of second references, and against the best one; per judge, and the lower of the
two judges counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardrail.errors import UsageError
from guardrail.outcome import Action
from guardrail.protocols import Detector, Embedder
from guardrail_training.evaluation.judges import Judge
from guardrail_training.evaluation.similarity import cosines
from guardrail_training.metrics.fluency import Surprise, perplexity
from guardrail_training.metrics.overlap import Overlap, corpus_bleu, overlap
from guardrail_training.metrics.statistics import Mean, bootstrap_mean

__all__ = [
    "Advantage",
    "Instruments",
    "Spread",
    "SystemBlock",
    "SystemMeasurements",
    "SystemOutputs",
    "advantage",
    "differences",
    "measure",
    "summarise",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SystemOutputs:
    """What one system made of some dev sentences.

    ``rows`` are the sentences' places in the dev set, so that systems measured on different parts of it can
    be compared where they overlap. ``actions`` is None for a system that always answers with a rewrite.
    """

    name: str
    rows: tuple[int, ...]
    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    outputs: tuple[str, ...]
    actions: tuple[Action, ...] | None = None

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.rows, self.sources, self.references, self.outputs)}
        lengths |= {len(self.actions)} if self.actions is not None else set()
        if len(lengths) != 1 or lengths == {0}:
            raise UsageError(
                f"system {self.name!r}: rows, sources, references and outputs have lengths {lengths}"
            )
        if not all(self.references):
            raise UsageError(f"system {self.name!r}: a sentence has no reference")


@dataclass(frozen=True, slots=True)
class Instruments:
    """What systems are measured with; ``encoders[0]`` gives the SIM that counts, others are also shown."""

    judges: tuple[Judge, ...]
    encoders: tuple[tuple[str, Embedder], ...]
    detector: Detector | None = None
    fluency: Callable[[Sequence[str]], Surprise] | None = None


@dataclass(frozen=True, slots=True)
class SystemMeasurements:
    """Per sentence figures of one system, each array of shape (n,); mappings by judge or encoder name."""

    system: SystemOutputs
    toxicity: Mapping[str, Floats]
    clean: Mapping[str, npt.NDArray[np.bool_]]
    similarity: Mapping[str, Floats]
    reference_similarity: Mapping[str, Floats]
    overlap: Overlap
    surprise: Surprise | None
    source_surprise: Surprise | None

    def joint(self, judge: str, *, best: bool = False, earned: npt.NDArray[np.bool_] | None = None) -> Floats:
        """J of every sentence, shape (n,); where ``earned`` is false a sentence gets no style accuracy."""
        style = self.clean[judge] if earned is None else self.clean[judge] & earned
        similarity = np.clip(next(iter(self.similarity.values())), 0.0, None)
        return np.asarray(style * similarity * (self.overlap.chrf_best if best else self.overlap.chrf_first))


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation (population)."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class SystemBlock:
    """One system's figures on one set of its sentences.

    ``sta``, ``j_first`` and ``j_best`` are by judge, with bootstrap intervals, and ``lower`` names the judge
    that counts for each. ``perplexity_ratio`` is perplexity of the outputs over that of their sources. Shares
    and overlap in 0..1.
    """

    system: str
    n: int
    actions: Mapping[str, int]
    sta: Mapping[str, Mean]
    j_first: Mapping[str, Mean]
    j_best: Mapping[str, Mean]
    lower: Mapping[str, str]
    similarity: Mapping[str, float]
    reference_similarity: Mapping[str, float]
    bleu: float
    corpus_bleu: float
    rouge1: float
    rouge2: float
    rougeL: float  # noqa: N815  the measure's published name
    chrf_first: float
    chrf_best: float
    toxicity: Mapping[str, Spread]
    perplexity: float | None
    perplexity_ratio: float | None

    def counted(self, measure: str) -> Mean:
        """``sta``, ``j_first`` or ``j_best`` under the judge that gives the lower figure."""
        values: Mapping[str, Mean] = getattr(self, measure)
        return values[self.lower[measure]]


@dataclass(frozen=True, slots=True)
class Advantage:
    """How much higher one system's J (first reference) is on the sentences it shares with another, paired."""

    over: str
    judge: str
    j: Mean


def measure(system: SystemOutputs, instruments: Instruments) -> SystemMeasurements:
    """Every per sentence figure of a system; blank outputs are measured as they are."""
    outputs, sources = list(system.outputs), list(system.sources)
    firsts = [several[0] for several in system.references]
    toxicity = {judge.name: judge.scores(outputs) for judge in instruments.judges}
    clean = {judge.name: toxicity[judge.name] < judge.threshold for judge in instruments.judges}
    if instruments.detector is not None:
        toxicity["detector"] = np.array([verdict.score for verdict in instruments.detector.detect(outputs)])
    return SystemMeasurements(
        system=system,
        toxicity=toxicity,
        clean=clean,
        similarity={name: cosines(encoder, sources, outputs) for name, encoder in instruments.encoders},
        reference_similarity={
            name: cosines(encoder, outputs, firsts) for name, encoder in instruments.encoders
        },
        overlap=overlap(outputs, system.references),
        surprise=instruments.fluency(outputs) if instruments.fluency else None,
        source_surprise=instruments.fluency(sources) if instruments.fluency else None,
    )


def summarise(measured: SystemMeasurements, *, seed: int, rewritten_only: bool = False) -> SystemBlock | None:
    """A system's figures over all its sentences, or with ``rewritten_only`` over those that were to be
    rewritten.

    In that second block a sentence that passed unchanged is left out, and one that was masked or refused
    earns no style accuracy, so that masking cannot pass for rewriting. None if it would be empty.
    """
    actions = measured.system.actions
    kept = np.ones(len(measured.system.rows), dtype=np.bool_)
    earned = np.ones_like(kept)
    if rewritten_only and actions is not None:
        kept = np.array([action is not Action.PASSED for action in actions])
        earned = np.array([action is Action.REWRITTEN for action in actions])
    return _block(measured, kept=np.flatnonzero(kept), earned=earned, seed=seed) if kept.any() else None


def _block(
    measured: SystemMeasurements, *, kept: npt.NDArray[np.intp], earned: npt.NDArray[np.bool_], seed: int
) -> SystemBlock:
    system, pieces = measured.system, measured.overlap
    style = {
        name: bootstrap_mean((clean & earned)[kept].astype(np.float64), seed=seed)
        for name, clean in measured.clean.items()
    }
    joint = {
        best: {
            name: bootstrap_mean(measured.joint(name, best=best, earned=earned)[kept], seed=seed)
            for name in measured.clean
        }
        for best in (False, True)
    }
    by_measure = {"sta": style, "j_first": joint[False], "j_best": joint[True]}
    outputs, references = [system.outputs[i] for i in kept], [system.references[i] for i in kept]
    fluent, ratio = _fluency(measured, kept)
    return SystemBlock(
        system=system.name,
        n=len(kept),
        actions=dict(Counter(str(system.actions[i]) for i in kept)) if system.actions is not None else {},
        sta=style,
        j_first=joint[False],
        j_best=joint[True],
        lower={
            name: min(values, key=lambda judge: values[judge].value) for name, values in by_measure.items()
        },
        similarity=_means(measured.similarity, kept),
        reference_similarity=_means(measured.reference_similarity, kept),
        bleu=float(pieces.bleu[kept].mean()),
        corpus_bleu=corpus_bleu(outputs, references),
        rouge1=float(pieces.rouge1[kept].mean()),
        rouge2=float(pieces.rouge2[kept].mean()),
        rougeL=float(pieces.rougeL[kept].mean()),
        chrf_first=float(pieces.chrf_first[kept].mean()),
        chrf_best=float(pieces.chrf_best[kept].mean()),
        toxicity={
            name: Spread(mean=float(scores[kept].mean()), std=float(scores[kept].std()))
            for name, scores in measured.toxicity.items()
        },
        perplexity=fluent,
        perplexity_ratio=ratio,
    )


def _means(values: Mapping[str, Floats], kept: npt.NDArray[np.intp]) -> dict[str, float]:
    return {name: float(array[kept].mean()) for name, array in values.items()}


def _fluency(measured: SystemMeasurements, kept: npt.NDArray[np.intp]) -> tuple[float | None, float | None]:
    """Perplexity of the outputs, and its ratio to the sources'."""
    if measured.surprise is None or measured.source_surprise is None:
        return None, None
    fluent, before = (
        perplexity(Surprise(nats=each.nats[kept], tokens=each.tokens[kept]))
        for each in (measured.surprise, measured.source_surprise)
    )
    return fluent, fluent / before


def differences(first: SystemMeasurements, second: SystemMeasurements, *, seed: int) -> dict[str, Mean]:
    """The paired difference in J of two systems by judge, first less second; empty if they have no
    sentence in common.
    """
    shared = sorted(set(first.system.rows) & set(second.system.rows))
    if not shared:
        return {}
    places = [[system.rows.index(row) for row in shared] for system in (first.system, second.system)]
    return {
        name: bootstrap_mean(first.joint(name)[places[0]] - second.joint(name)[places[1]], seed=seed)
        for name in first.clean
    }


def advantage(first: SystemMeasurements, second: SystemMeasurements, *, seed: int) -> Advantage | None:
    """The paired difference in J of two systems under the judge that favours the first least.

    None if they have no sentence in common.
    """
    found = differences(first, second, seed=seed)
    if not found:
        return None
    judge = min(found, key=lambda name: found[name].value)
    return Advantage(over=second.system.name, judge=judge, j=found[judge])
