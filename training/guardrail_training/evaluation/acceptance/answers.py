"""What each system makes of the sentences."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from guardrail import Guard
from guardrail.errors import UsageError
from guardrail.manifest import sha256_of
from guardrail.outcome import Action
from guardrail_training.evaluation.acceptance.settings import AcceptanceSettings, SystemPlace
from guardrail_training.evaluation.generation.samples import read_samples
from guardrail_training.evaluation.systems import EvaluatedGuard, faults_of
from guardrail_training.provenance import model_hashes
from guardrail_training.records import read_records

__all__ = ["SystemAnswers", "answers_of", "guarded"]


@dataclass(frozen=True, slots=True)
class SystemAnswers:
    """A system's output and action for each sentence, and the sha256 of the files that it is made of."""

    name: str
    outputs: tuple[str, ...] = field(repr=False)
    actions: tuple[Action, ...]
    made_of: Mapping[str, str]


def answers_of(place: SystemPlace, sources: Sequence[str], settings: AcceptanceSettings) -> SystemAnswers:
    """Runs the system, or reads its ready outputs.

    Raises UsageError for a place that is none of the kinds, for a model that failed on the way, and for
    ready outputs that lack a sentence.
    """
    if place.place.endswith(".jsonl"):
        return _ready(place, sources)
    if ".jsonl#" in place.place:
        return _sampled(place, sources)
    path = Path(place.place)
    if place.place.endswith(".toml"):
        made_of = {path.name: sha256_of(path)} if path.is_file() else {}
        return guarded(place.name, Guard.from_config(path), sources, made_of=made_of)
    guard = Guard.from_config(settings.config) if settings.config else Guard()
    made_of = {Path(settings.config).name: sha256_of(settings.config)} if settings.config else {}
    if place.place:
        if not path.is_dir():
            raise UsageError(
                f"system {place.name!r}: {place.place} is neither an adapter's folder nor a .toml or .jsonl "
                "file"
            )
        guard, made_of = guard.with_adapter(path), made_of | model_hashes(path)
    return guarded(place.name, guard, sources, made_of=made_of)


def guarded(
    name: str, guard: EvaluatedGuard, sources: Sequence[str], *, made_of: Mapping[str, str]
) -> SystemAnswers:
    """What a guard lets out; UsageError if a model failed: the figures would be those of the error policy."""
    outcomes = guard.check_many(list(sources))
    if faults := faults_of(outcomes):
        raise UsageError(f"system {name!r} did not run with all its models: {', '.join(faults)}")
    return SystemAnswers(
        name,
        tuple(outcome.text for outcome in outcomes),
        tuple(outcome.action for outcome in outcomes),
        made_of,
    )


def _ready(place: SystemPlace, sources: Sequence[str]) -> SystemAnswers:
    found: dict[str, tuple[str, Action]] = {}
    for record in read_records(place.place, fields={"source": str, "output": str}):
        said = record.content.get("action") or Action.REWRITTEN
        try:
            found[record["source"]] = record["output"], Action(said)
        except ValueError:
            raise UsageError(
                f"{place.place} row {record.number}: action must be one of {', '.join(Action)}, got {said!r}"
            ) from None
    _require_all(place, sources, found)
    outputs, actions = zip(*(found[text] for text in sources), strict=True)
    return SystemAnswers(place.name, outputs, actions, {Path(place.place).name: sha256_of(place.place)})


def _sampled(place: SystemPlace, sources: Sequence[str]) -> SystemAnswers:
    """What one model of ``evaluate generation`` answered, all of which is read."""
    path, _, model = place.place.rpartition("#")
    found = {
        sample.query: sample.outputs[model].response
        for sample in read_samples(path)
        if model in sample.outputs
    }
    _require_all(place, sources, found)
    outputs = tuple(found[text] for text in sources)
    made_of = {Path(path).name: sha256_of(path)}
    return SystemAnswers(place.name, outputs, (Action.REWRITTEN,) * len(outputs), made_of)


def _require_all(place: SystemPlace, sources: Sequence[str], found: Container[str]) -> None:
    if missing := [text for text in sources if text not in found]:
        raise UsageError(
            f"system {place.name!r}: {place.place} lacks {len(missing)} of {len(sources)} sentences"
        )
