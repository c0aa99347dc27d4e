"""Reads a run's folder: settings, logged figures, kept adapters, and what it was measured by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError
from guardrail.manifest import Manifest
from guardrail_training.evaluation.best_checkpoint import step_folders
from guardrail_training.evaluation.generation.comparison import GenerationComparison, read_comparison
from guardrail_training.evaluation.generation.samples import Sample, read_samples
from guardrail_training.evaluation.generation.settings import MEASURED, SAMPLES
from guardrail_training.records import TrainingRowError, read_records
from guardrail_training.report.acceptance import Acceptance, find_acceptance
from guardrail_training.report.rewriting import Rewriting, find_rewriting

__all__ = ["Generation", "ReportedRun", "Series", "read_run"]

RUN, METRICS = "run.json", "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Series:
    """One logged figure: ``values[i]`` after step ``steps[i]``; a value may be no finite number."""

    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Generation:
    """What ``guardrail-train evaluate generation`` found: its figures and its samples."""

    comparison: GenerationComparison
    samples: tuple[Sample, ...] = field(repr=False)

    def difference(self, sample: Sample) -> float:
        """How much the reward of a sample's response rose."""
        return sample.gain(*self.comparison.pair)


@dataclass(frozen=True, slots=True)
class ReportedRun:
    """A run's folder in memory.

    ``facts`` is all of run.json but settings, versions and commit; ``manifest`` is the last kept adapter's.
    """

    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    git: str | None
    facts: Mapping[str, Any]
    series: Mapping[str, Series]
    manifest: Manifest | None
    generation: Generation | None
    rewriting: tuple[Rewriting, ...] = ()
    acceptance: Acceptance | None = None

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.settings.get("name") or "training run")

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return max(series.steps[-1] for series in self.series.values())

    @property
    def steps(self) -> int | None:
        """How many steps the run was to take, where it says so."""
        for source in (self.facts, self.settings):
            if isinstance(source.get("steps"), int):
                return int(source["steps"])
        return None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens that training read or drew in a second of its steps, if both were logged."""
        if "tokens" in self.series and "seconds" in self.series:
            tokens, parts = sum(self.series["tokens"].values), ["seconds"]
        elif "tokens/responses_len_mean" in self.series:
            rows = self.settings.get("batch_size", 0) * self.settings.get("samples_per_prompt", 1)
            tokens = rows * sum(self.series["tokens/responses_len_mean"].values)
            parts = ["time/rollout", "time/update"]
        else:
            return None
        seconds = sum(sum(self.series[part].values) for part in parts if part in self.series)
        return tokens / seconds if seconds > 0 and math.isfinite(tokens) else None

    @property
    def start_sha256(self) -> Mapping[str, str]:
        """The files of the adapter that the run continued from."""
        origin = self.manifest.settings.get("started_from") if self.manifest is not None else None
        return dict(origin["files"]) if isinstance(origin, Mapping) else {}


def read_run(folder: str | Path, *, results: Sequence[str | Path] = ()) -> ReportedRun:
    """The run in a folder, with the evaluations of rewriting there and in the files ``results``.

    Raises UsageError, or TrainingRowError with the row, that names the file that is missing or broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(
            f"no run in {folder}: it is not a folder; give the folder that a trainer wrote (--out)"
        )
    content = _object(folder / RUN)
    for name in ("settings", "versions"):
        if not isinstance(content.get(name), dict):
            raise UsageError(f"{folder / RUN} has no object {name!r}: no trainer of this package wrote it")
    return ReportedRun(
        settings=content["settings"],
        versions=content["versions"],
        git=content.get("git"),
        facts={key: value for key, value in content.items() if key not in ("settings", "versions", "git")},
        series=_series(folder / METRICS),
        manifest=_last_manifest(folder),
        generation=_generation(folder),
        rewriting=find_rewriting(folder, results=results),
        acceptance=find_acceptance(folder),
    )


def _last_manifest(folder: Path) -> Manifest | None:
    try:
        kept = step_folders(folder)
    except UsageError:  # a run that has not kept an adapter yet
        return None
    return Manifest.load(kept[-1], verify=False)


def _object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{path} not found: a run's folder holds {RUN} and {METRICS}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise UsageError(f"{path} is not valid JSON at {place}; write it again") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text; write it again") from None
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold a JSON object, got {type(content).__name__}")
    return content


def _series(path: Path) -> dict[str, Series]:
    if not path.is_file():
        raise UsageError(f"{path} not found: a run's folder holds {RUN} and {METRICS}")
    found: dict[str, list[tuple[int, float]]] = {}
    for record in read_records(path, fields={"step": int}):
        for name, value in record.content.items():
            if name == "step":
                continue
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise TrainingRowError(f"{path} row {record.number}: {name!r} must be a number")
            found.setdefault(name, []).append((record["step"], float(value)))
    if not found:
        raise TrainingRowError(f"{path} holds no figures alongside the steps")
    return {
        name: Series(steps=tuple(step for step, _ in points), values=tuple(value for _, value in points))
        for name, points in found.items()
    }


def _generation(folder: Path) -> Generation | None:
    measured, samples = folder / MEASURED, folder / SAMPLES
    if not measured.is_file() and not samples.is_file():
        return None
    comparison = read_comparison(measured)
    found = tuple(read_samples(samples))
    judges = set(comparison.changes)
    for sample in found:
        kept = [sample.outputs.get(name) for name in comparison.pair]
        if not all(output is not None and judges == set(output.toxicity) for output in kept):
            raise UsageError(
                f"{samples} does not belong to {measured.name} alongside it: run 'evaluate generation' again"
            )
    return Generation(comparison=comparison, samples=found)
