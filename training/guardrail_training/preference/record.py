"""What names a run's candidates and its training, and what its adapters say of themselves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.adapter import Adapter
from guardrail_training.data import Row
from guardrail_training.modeling import save_adapter
from guardrail_training.preference.comparisons import Comparison
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.provenance import weights_sha256
from guardrail_training.records import data_folder
from guardrail_training.rewards.algebra import Reward
from guardrail_training.runlog import git_commit, package_versions
from guardrail_training.sft import identity_of

__all__ = ["keep_adapter", "manifest_of", "ranking_fingerprint", "training_fingerprint"]

PLACES = frozenset({"base", "adapter", "out", "data"})
# What candidates depend on. Not the number of sentences or the margin: with others the same file serves.
RANKING = ("candidates", "temperature", "references", "response_tokens", "dtype", "seed")
TRAINING = (
    "method", "beta", "nll_weight", "learning_rate", "warmup", "max_grad_norm", "passes", "batch_size",
    "dtype", "seed",
)  # fmt: skip
IN_MANIFEST = ("rewards/accuracies", "rewards/margins")


def ranking_fingerprint(
    settings: PreferenceSettings, *, rows: Sequence[Row], reward: Reward, start: Adapter, base: Path
) -> str:
    """Names everything that decides which candidates a row gets and how they are ranked."""
    return _sha256(
        [
            {key: getattr(settings, key) for key in RANKING},
            [[row.number, row.source, *row.references] for row in rows],
            [reward.formula, *sorted(reward.models)],
            _origin(start, base),
        ]
    )


def training_fingerprint(
    settings: PreferenceSettings, *, pairs: Sequence[Comparison], start: Adapter, base: Path
) -> str:
    """Names everything that decides the steps of a run."""
    return _sha256(
        [
            {key: getattr(settings, key) for key in TRAINING},
            [[pair.query, pair.chosen, pair.rejected] for pair in pairs],
            _origin(start, base),
        ]
    )


def _origin(start: Adapter, base: Path) -> list[Any]:
    return [dict(start.manifest.files), start.template.literal, weights_sha256(base)]


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def manifest_of(
    settings: PreferenceSettings, *, pairs: Sequence[Comparison], reward: str, start: Adapter, base: Path
) -> Manifest:
    """The manifest of the run's adapters, but for their files and metrics.

    ``settings`` names the starting adapter by the sha256 of its weights, ``data`` counts the pairs.
    """
    folder = data_folder(settings.data)
    train = folder / "paradetox" / "train.jsonl" if folder else None
    values = {key: value for key, value in asdict(settings).items() if key not in PLACES}
    return Manifest(
        kind="adapter",
        name=settings.name,
        version="0.1.0",
        licence="Apache-2.0",
        files={},
        **identity_of(base),
        template=start.template.literal,
        scripts=start.manifest.scripts,
        settings={**values, "reward": reward, "started_from": dict(start.manifest.files)},
        data=[
            {
                "name": "paradetox",
                "split": "train",
                "rows": len(pairs),
                "sha256": sha256_of(train) if train else None,
            }
        ],
        versions=package_versions(),
        seed=settings.seed,
        git=git_commit(),
    )


def keep_adapter(
    model: PeftModel, folder: Path, *, manifest: Manifest, step: int, figures: Mapping[str, float]
) -> None:
    """Writes the model's adapter after ``step`` with its manifest."""
    files = save_adapter(model, folder)
    replace(
        manifest,
        files={path.name: sha256_of(path) for path in files},
        metrics={"step": step, **{key: round(figures[key], 4) for key in IN_MANIFEST}},
    ).save(folder)
