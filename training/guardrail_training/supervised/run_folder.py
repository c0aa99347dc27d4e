"""What a supervised run leaves in its folder: settings, metrics, models, and the state to continue from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from guardrail.manifest import FILENAME, Manifest, sha256_of
from guardrail.rewriters.adapter import Adapter
from guardrail_training import modeling
from guardrail_training.checkpoint import load_checkpoint, save_checkpoint
from guardrail_training.data import Rows
from guardrail_training.processes import Processes
from guardrail_training.provenance import weights_sha256
from guardrail_training.runlog import MetricLog, git_commit, package_versions, write_run
from guardrail_training.supervised.corpus import sources_sha256
from guardrail_training.supervised.settings import SftSettings

__all__ = ["RunFolder", "identity_of"]

PLACES = frozenset({"base", "adapter", "out", "data"})
# Where files lie, what is in memory and how often something is written changes no number.
FREE = PLACES | {
    "streaming",
    "microbatch_size",
    "gradient_checkpointing",
    "device",
    "threads",
    "checkpoint_every",
    "evaluations_per_pass",
}


class RunFolder:
    """The folder of a run. In a distributed run the first process alone writes; all read."""

    def __init__(
        self,
        settings: SftSettings,
        *,
        rows: Rows,
        base: Path,
        tokenizer: Any,
        start: Adapter | None,
        processes: Processes,
    ) -> None:
        self._settings, self._rows, self._tokenizer = settings, rows, tokenizer
        self._out, self._writes = Path(settings.out), processes.is_first
        self._identity = identity_of(base)
        self._manifest = _manifest(settings, rows=len(rows), identity=self._identity)
        self._fingerprint = _fingerprint(settings, rows, start=start)
        self._log: MetricLog | None = None

    def resume(self, model: Any, optimizer: torch.optim.Optimizer, *, facts: Mapping[str, Any]) -> int:
        """Puts back an earlier state and returns its step, 0 where there is none; opens the log.

        Raises ConfigError where the folder holds a run with other settings or data.
        """
        step = load_checkpoint(self._out, model=model, optimizer=optimizer, fingerprint=self._fingerprint)
        if self._writes:
            self._out.mkdir(parents=True, exist_ok=True)
            self._log = MetricLog(self._out, resumed_from=step)
            count = modeling.count_parameters(model)
            known = {
                "rows": len(self._rows),
                "references": sum(len(row.references) for row in self._rows),
                "trainable_parameters": count.trainable,
                "parameters": count.total,
                "optimizer": type(optimizer).__name__,
                "torch_threads": torch.get_num_threads(),
                "fingerprint": self._fingerprint,
                "base_sha256": self._identity["trained_on"],
                "data_sha256": sources_sha256(self._settings),
            }
            write_run(self._out, settings=self._settings, facts={**known, **facts})
        return step

    def add(self, figures: Mapping[str, float], *, step: int) -> None:
        """Logs a step."""
        if self._log is not None:
            self._log.add(figures, step=step)

    def keep(self, model: Any, *, step: int, dev_loss: float) -> None:
        """Writes the adapter, or the whole model where all of it was trained, into ``step-N``."""
        if not self._writes:
            return
        folder, manifest = self._out / f"step-{step}", self._manifest
        if isinstance(model, PeftModel):
            files = modeling.save_adapter(model, folder)
        else:
            files = modeling.save_model(model, folder, tokenizer=self._tokenizer)
            manifest = replace(manifest, kind="base", trained_on=weights_sha256(folder), compatible_bases={})
        hashes = {path.name: sha256_of(path) for path in files}
        metrics = {"step": step, "dev_loss": round(dev_loss, 4)}
        replace(manifest, files=hashes, metrics=metrics).save(folder)

    def save_state(self, model: Any, optimizer: torch.optim.Optimizer, *, step: int) -> None:
        """Writes the state after ``step``, from which ``resume`` continues to the bit."""
        if self._writes:
            save_checkpoint(
                self._out, step=step, model=model, optimizer=optimizer, fingerprint=self._fingerprint
            )

    def close(self) -> None:
        """Flushes the log."""
        if self._log is not None:
            self._log.close()


def identity_of(base: Path) -> dict[str, Any]:
    """What an adapter's manifest says of the base it was trained on: ``trained_on``, ``compatible_bases``."""
    weights = weights_sha256(base)
    # A converted base names the file it was converted from: that one is published, the conversion is not.
    origin = Manifest.load(base, verify=False).trained_on if (base / FILENAME).is_file() else None
    return {
        "trained_on": origin or weights,
        "compatible_bases": {weights: "measured"} if origin not in (None, weights) else {},
    }


def _fingerprint(settings: SftSettings, rows: Rows, *, start: Adapter | None) -> str:
    decisive = {key: value for key, value in asdict(settings).items() if key not in FREE}
    origin = dict(start.manifest.files) if start is not None else {}
    digest = hashlib.sha256(json.dumps([decisive, origin], sort_keys=True).encode())
    for row in rows:
        digest.update(json.dumps([row.source, *row.references]).encode())
    return digest.hexdigest()


def _manifest(settings: SftSettings, *, rows: int, identity: Mapping[str, Any]) -> Manifest:
    values = {key: value for key, value in asdict(settings).items() if key not in PLACES}
    source = {"name": settings.train, "rows": rows, "sha256": sources_sha256(settings).get("train")}
    return Manifest(
        kind="adapter",
        name=settings.name,
        version="0.1.0",
        licence="Apache-2.0",
        files={},
        **identity,
        template=settings.template,
        scripts=("Latin",),
        settings=values,
        data=[source],
        versions=package_versions(),
        seed=settings.seed,
        git=git_commit(),
    )
