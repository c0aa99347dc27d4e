"""What responses are measured by, and how much lower the toxicity of one model is than another's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from guardrail.errors import UsageError
from guardrail.protocols import Embedder
from guardrail_training.evaluation.similarity import MiniLm, ParaphraseL3, cosines
from guardrail_training.metrics.overlap import overlap
from guardrail_training.metrics.statistics import RESAMPLES, Mean, bootstrap_mean
from guardrail_training.provenance import SHIPPED, model_folder
from guardrail_training.rewards.algebra import Answer, Reward, Score
from guardrail_training.rewards.formula import read_formula

__all__ = [
    "MeanInterval",
    "RelativeChange",
    "load_encoder",
    "load_toxicity",
    "relative_change",
    "rouge",
    "similarity",
    "smallest_reduction",
    "spread_of",
]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """A mean with its interval, and the standard deviation (population) of the values."""

    mean: Mean
    std: float


@dataclass(frozen=True, slots=True)
class RelativeChange:
    """A relative change, -1 for a fall to 0, with its 95 % interval; None if it began at 0."""

    value: float | None
    low: float | None
    high: float | None


def load_toxicity(formulas: Sequence[str]) -> dict[str, Score]:
    """What gives the toxicity of answers, by formula; models are loaded."""
    return {formula: partial(_scored, read_formula(formula)) for formula in formulas}


def _scored(reward: Reward, answers: Sequence[Answer]) -> Floats:
    return np.asarray(reward(answers).total, dtype=np.float64)


def spread_of(values: Sequence[float], *, seed: int) -> MeanInterval:
    """Mean with interval, and standard deviation."""
    return MeanInterval(mean=bootstrap_mean(values, seed=seed), std=float(np.std(values)))


def rouge(outputs: Sequence[str], references: Sequence[Sequence[str]], *, seed: int) -> dict[str, Mean]:
    """ROUGE-1, -2 and -L against the first reference of each output."""
    found = overlap(outputs, references)
    return {name: bootstrap_mean(getattr(found, name), seed=seed) for name in ("rouge1", "rouge2", "rougeL")}


def load_encoder(name: str) -> Embedder:
    """The encoder of a name: ``detector``, ``paraphrase-minilm-l3``, or the folder or name of a MiniLM."""
    if name == "detector":
        from guardrail.detectors.onnx import OnnxDetector

        return OnnxDetector(SHIPPED / "detector")
    if name == "paraphrase-minilm-l3":
        original = model_folder("minilm-l6-v2")
        return ParaphraseL3(next(model_folder(name).glob("*.onnx")), tokenizer=original / "tokenizer.json")
    return MiniLm(model_folder(name))


def similarity(
    encoder: Embedder, outputs: Sequence[str], references: Sequence[Sequence[str]], *, seed: int
) -> Mean:
    """The mean cosine of each output with its first reference."""
    return bootstrap_mean(cosines(encoder, outputs, [several[0] for several in references]), seed=seed)


def relative_change(
    before: Sequence[float], after: Sequence[float], *, figure: Callable[[Floats], float], seed: int
) -> RelativeChange:
    """How much a figure of the same prompts changed, relative to before, with a paired bootstrap interval."""
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape or first.size == 0:
        raise UsageError(f"a change is between equally many values, got {first.size} and {second.size}")
    generator = np.random.default_rng(seed)
    changes = []
    for _ in range(RESAMPLES):
        rows = generator.integers(0, first.size, first.size)
        if (origin := figure(first[rows])) > 0:
            changes.append(figure(second[rows]) / origin - 1)
    origin = figure(first)
    if origin <= 0 or not changes:
        return RelativeChange(value=None, low=None, high=None)
    low, high = np.quantile(changes, [0.025, 0.975])
    return RelativeChange(value=float(figure(second) / origin - 1), low=float(low), high=float(high))


def smallest_reduction(changes: Mapping[str, RelativeChange]) -> str | None:
    """The judge that counts: the one by which toxicity fell least; None if none of them began above 0."""
    found = {name: change.value for name, change in changes.items() if change.value is not None}
    return max(found, key=lambda name: found[name]) if found else None
