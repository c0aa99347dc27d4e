"""A comparison's figures, and the file that holds them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError
from guardrail_training.evaluation.generation.measures import MeanInterval, RelativeChange
from guardrail_training.metrics.statistics import Mean
from guardrail_training.provenance import plain

__all__ = [
    "Changes",
    "GenerationComparison",
    "GenerationSystem",
    "mean_of",
    "read_comparison",
    "write_comparison",
]


@dataclass(frozen=True, slots=True)
class GenerationSystem:
    """One model's figures over all prompts: reward and its terms, toxicity by judge, ROUGE by its kind.

    ``rouge`` is empty without references and holds ``similarity`` too if an encoder was named; ``ended`` is
    the share of responses that ended before the limit of tokens.
    """

    name: str
    title: str
    n: int
    reward: MeanInterval
    terms: Mapping[str, Mean]
    toxicity: Mapping[str, MeanInterval]
    rouge: Mapping[str, Mean]
    tokens: MeanInterval
    ended: float


@dataclass(frozen=True, slots=True)
class Changes:
    """How mean and standard deviation of toxicity changed by one judge."""

    mean: RelativeChange
    std: RelativeChange


@dataclass(frozen=True, slots=True)
class GenerationComparison:
    """The models in the order of training, two of which are ``before`` and ``after``, and their origin.

    ``changes`` is by judge; ``counted`` is the judge by which toxicity fell least. ``data`` and ``models``
    are sha256 by file.
    """

    before: str
    after: str
    reward: str
    systems: tuple[GenerationSystem, ...]
    changes: Mapping[str, Changes]
    counted: str | None
    settings: Mapping[str, Any]
    seed: int
    versions: Mapping[str, str]
    git: str | None
    data: Mapping[str, str]
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def pair(self) -> tuple[str, str]:
        """The names of the models before and after."""
        return self.before, self.after

    def __post_init__(self) -> None:
        measures = {(*system.terms, "", *system.toxicity, "", *system.rouge) for system in self.systems}
        judges = {tuple(system.toxicity) for system in self.systems}
        if not {*self.pair} <= {system.name for system in self.systems} or len(measures) != 1:
            raise UsageError("a comparison needs a model before and one after, measured by the same measures")
        if judges != {tuple(self.changes)} or not self.changes:
            raise UsageError("a comparison needs a change by each judge of toxicity, and one judge at least")


def write_comparison(path: str | Path, comparison: GenerationComparison) -> None:
    """Writes the figures as JSON."""
    content = json.dumps(plain(comparison), indent=1, allow_nan=False)
    Path(path).write_text(content + "\n", encoding="utf-8")


def read_comparison(path: str | Path) -> GenerationComparison:
    """The figures of a file; UsageError names it where ``write_comparison`` did not write it."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        known = {
            "systems": tuple(_system(each) for each in content["systems"]),
            "changes": {judge: _changes(each) for judge, each in content["changes"].items()},
            "data": dict(content["data"]),
            "models": {name: dict(files) for name, files in content["models"].items()},
        }
        return GenerationComparison(**{**content, **known})
    except FileNotFoundError:
        raise UsageError(f"{path} not found: run 'guardrail-train evaluate generation' again") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        # UsageError is a ValueError: what the figures lack matters less than the file.
        raise UsageError(
            f"{path} holds no comparison of models: run 'guardrail-train evaluate generation' again"
        ) from None


def _system(content: Any) -> GenerationSystem:
    known = {
        "title": str(content["title"]),
        "reward": _figure(content["reward"]),
        "terms": {name: mean_of(each) for name, each in content["terms"].items()},
        "toxicity": {judge: _figure(each) for judge, each in content["toxicity"].items()},
        "rouge": {name: mean_of(each) for name, each in content["rouge"].items()},
        "tokens": _figure(content["tokens"]),
        "ended": float(content["ended"]),
    }
    return GenerationSystem(**{**content, **known})


def _figure(content: Any) -> MeanInterval:
    return MeanInterval(mean=mean_of(content["mean"]), std=float(content["std"]))


def mean_of(content: Any) -> Mean:
    """A mean as JSON holds it; KeyError, TypeError or ValueError for anything else."""
    numbers = {name: float(content[name]) for name in ("value", "low", "high")}
    return Mean(**numbers, n=int(content["n"]))


def _changes(content: Any) -> Changes:
    return Changes(mean=RelativeChange(**content["mean"]), std=RelativeChange(**content["std"]))
