"""Refuses an adapter with which the guard would release fewer rewrites than with the one in use.

    guardrail-train gate ADAPTER --dev FILE

Both adapters rewrite the same sentences inside the whole guard: what counts is the share of flagged sentences
whose rewrite passes every check and the verifier. Sentences that the detector passes are the same for both
and are left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.errors import FailureError, UsageError
from guardrail.manifest import Manifest, sha256_of
from guardrail.outcome import Action, Outcome
from guardrail_training.evaluation.gate_settings import GateSettings
from guardrail_training.evaluation.systems import EvaluatedGuard, faults_of
from guardrail_training.metrics.statistics import Mean, bootstrap_mean
from guardrail_training.outputs import require_writable
from guardrail_training.provenance import SHIPPED, model_folder, plain, weights_sha256
from guardrail_training.records import TrainingRowError, read_records
from guardrail_training.runlog import git_commit, package_versions

__all__ = [
    "MEASURED",
    "AdapterComparison",
    "AdapterRefusedError",
    "GateSettings",
    "Released",
    "compare",
    "run",
]

MEASURED = "guarded.json"
NO_DEADLINE: dict[str, Any] = {"detect_timeout": None, "rewrite_timeout": None}


class AdapterRefusedError(FailureError):
    """With the new adapter the guard releases fewer rewrites than with the one in use."""


@dataclass(frozen=True, slots=True)
class Released:
    """What a guard did with the flagged sentences: the share it rewrote, and what refused others."""

    adapter: str
    share: Mean
    actions: Mapping[str, int]
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AdapterComparison:
    """Both adapters' figures over ``flagged`` of ``n`` sentences, and the paired difference."""

    n: int
    flagged: int
    new: Released
    current: Released
    difference: Mean

    @property
    def accepted(self) -> bool:
        """Whether the guard releases at least as many rewrites with the new adapter."""
        return self.difference.value >= 0

    @property
    def reason(self) -> str:
        """Both shares and their paired difference with its 95 % interval, in words."""
        less = self.difference
        return (
            f"the guard releases a rewrite of {self.new.share.value:.1%} of {self.flagged} flagged "
            f"sentences, with the current adapter of {self.current.share.value:.1%}; the paired difference "
            f"is {less.value:+.3f} [{less.low:+.3f}, {less.high:+.3f}]"
        )


def run(settings: GateSettings, *, guard: Callable[[Path], EvaluatedGuard] | None = None) -> Path:
    """Compares, writes ``guarded.json`` and returns its path.

    ``guard`` makes a guard of an adapter's folder in place of the default guard on ``base``. Raises
    AdapterRefusedError, with everything written, if the gate is closed; UsageError if no sentence is
    flagged, or a model failed.
    """
    out = require_writable(settings.out or settings.adapter, folder=True)
    folders = {
        "new": Path(settings.adapter),
        "current": Path(settings.current) if settings.current else SHIPPED / "rewriter",
    }
    manifests = {name: Manifest.load(folder) for name, folder in folders.items()}
    sentences = _sentences(settings)
    base = model_folder(settings.base)
    make = guard or _guard_on(base)
    found = compare({name: make(folder) for name, folder in folders.items()}, sentences, seed=settings.seed)
    content = {
        "accepted": found.accepted,
        "reason": found.reason,
        **asdict(found),
        "dev": {Path(settings.dev).name: sha256_of(settings.dev)},
        "adapters": {name: dict(manifest.files) for name, manifest in manifests.items()},
        "base": weights_sha256(base),
        "seed": settings.seed,
        "versions": package_versions(),
        "git": git_commit(),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / MEASURED
    path.write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")
    if not found.accepted:
        raise AdapterRefusedError(f"{found.reason}; the figures are in {path}")
    return path


def compare(
    guards: Mapping[str, EvaluatedGuard], sentences: Sequence[str], *, seed: int
) -> AdapterComparison:
    """What guards ``new`` and ``current``, which share a detector, do with the same sentences."""
    outcomes = {name: guard.check_many(list(sentences)) for name, guard in guards.items()}
    for name, found in outcomes.items():
        if faults := faults_of(found):
            raise UsageError(
                f"the {name} adapter's guard did not run with all its models: {', '.join(faults)}"
            )
    flagged = [
        place
        for place in range(len(sentences))
        if any(found[place].action is not Action.PASSED for found in outcomes.values())
    ]
    if not flagged:
        raise UsageError(f"the detector flags none of the {len(sentences)} sentences: nothing to compare")
    kept = {name: [found[place] for place in flagged] for name, found in outcomes.items()}
    released = {name: np.array([float(_is_released(each)) for each in found]) for name, found in kept.items()}
    figures = {
        name: Released(
            adapter=name,
            share=bootstrap_mean(released[name], seed=seed),
            actions=dict(Counter(str(each.action) for each in found)),
            refused=_refusals(each for each in found if not _is_released(each)),
        )
        for name, found in kept.items()
    }
    return AdapterComparison(
        n=len(sentences),
        flagged=len(flagged),
        new=figures["new"],
        current=figures["current"],
        difference=bootstrap_mean(released["new"] - released["current"], seed=seed),
    )


def _is_released(outcome: Outcome) -> bool:
    """Whether every flagged segment was rewritten: one that was masked or refused is none."""
    return outcome.action is Action.REWRITTEN and all(
        edit.action is Action.REWRITTEN for edit in outcome.edits
    )


def _refusals(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """In how many outcomes each check refused something, the most frequent first."""
    failed = ({check for edit in each.edits for check in edit.failed_checks} for each in outcomes)
    return dict(Counter(check for checks in failed for check in checks).most_common())


def _sentences(settings: GateSettings) -> list[str]:
    records = read_records(settings.dev)
    records = records[: settings.limit] if settings.limit else records
    found = []
    for record in records:
        text = record.content.get(settings.source)
        if not isinstance(text, str) or not text.strip():
            raise TrainingRowError(
                f"{settings.dev} row {record.number}: field {settings.source} must be a text, not empty; "
                "name another with --source"
            )
        found.append(text)
    return found


def _guard_on(base: Path) -> Callable[[Path], EvaluatedGuard]:
    """Guards with the shipped detector, word list and verifier, and an adapter on the base."""
    from guardrail import Guard, Policy
    from guardrail.rewriters.lora import LoraRewriter

    guard: Guard | None = None

    def make(folder: Path) -> Guard:
        nonlocal guard
        if guard is None:
            rewriter = LoraRewriter.load(folder, base_folder=base)
            guard = Guard(policy=Policy(**NO_DEADLINE), rewriter=rewriter)
        else:
            guard = guard.with_adapter(folder)
        return guard

    return make
