"""What a run leaves in its folder: settings, metrics, adapters, and the state to continue from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from guardrail.manifest import Manifest, Template, sha256_of
from guardrail.rewriters.adapter import Adapter
from guardrail_training.checkpoint import load_checkpoint, save_checkpoint
from guardrail_training.modeling import trainable_parameters
from guardrail_training.processes import Processes
from guardrail_training.records import required_folder
from guardrail_training.reinforcement.adapters import save_stacked
from guardrail_training.reinforcement.kl_control import KlControl
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.queries import Query
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Reward
from guardrail_training.runlog import MetricLog, git_commit, package_versions, write_run
from guardrail_training.sft import identity_of

__all__ = ["RunFolder", "prompt_file"]

PLACES = frozenset({"base", "adapter", "out", "data"})
# Where files lie, what is in memory and how often something is written changes no number.
FREE = PLACES | {"gradient_checkpointing", "threads", "checkpoint_every", "keep_every"}
IN_MANIFEST = ("ppo/mean_scores", "objective/kl")


class RunFolder:
    """The folder of a run. In a distributed run the first process alone writes; all read."""

    def __init__(
        self,
        settings: PpoSettings,
        *,
        reward: Reward,
        queries: Sequence[Query],
        template: Template,
        start: Adapter | None,
        base: Path,
        processes: Processes,
    ) -> None:
        self._settings, self._reward, self._queries = settings, reward, queries
        self._start, self._out, self._writes = start, Path(settings.out), processes.is_first
        self._processes = processes
        self._manifest = _manifest(settings, template=template, base=base, reward=reward, queries=queries)
        self._fingerprint = _fingerprint(settings, queries, reward=reward, start=start)
        self._log: MetricLog | None = None

    def resume(self, learner: Learner, optimizer: torch.optim.Optimizer, control: KlControl) -> int:
        """Puts back an earlier state and returns its step, 0 where there is none; opens the log.

        Raises ConfigError where the folder holds a run with other settings or data.
        """
        step = load_checkpoint(
            self._out, model=learner, optimizer=optimizer, fingerprint=self._fingerprint, control=control
        )
        if self._writes:
            self._out.mkdir(parents=True, exist_ok=True)
            self._log = MetricLog(self._out, resumed_from=step)
            facts = {
                "queries": len(self._queries),
                "reward": self._reward.formula,
                "trainable_parameters": sum(p.numel() for p in trainable_parameters(learner)),
                "parameters": sum(p.numel() for p in learner.parameters()),
                "torch_threads": torch.get_num_threads(),
                "processes": self._processes.count,
                "sharded": self._processes.is_sharded,
                "fingerprint": self._fingerprint,
            }
            write_run(self._out, settings=self._settings, facts=facts)
        return step

    def add(self, figures: Mapping[str, float], *, step: int) -> None:
        """Logs a step."""
        if self._log is not None:
            self._log.add(figures, step=step)

    def keep_adapter(
        self, learner: Learner, name: str, *, step: int, figures: Mapping[str, float] | None = None
    ) -> Path:
        """Writes the adapter after ``step`` into a folder of that name; returns its path."""
        folder = self._out / name
        if self._writes:
            files = save_stacked(learner.model, folder, start=self._start)
            replace(
                self._manifest,
                files={path.name: sha256_of(path) for path in files},
                metrics={"step": step, **{key: round(figures[key], 4) for key in IN_MANIFEST if figures}},
            ).save(folder)
        return folder

    def save_state(
        self, learner: Learner, optimizer: torch.optim.Optimizer, control: KlControl, *, step: int
    ) -> None:
        """Writes the state after ``step``, from which ``resume`` continues to the bit."""
        if self._writes:
            save_checkpoint(
                self._out,
                step=step,
                model=learner,
                optimizer=optimizer,
                fingerprint=self._fingerprint,
                control=control,
            )

    def close(self) -> None:
        """Flushes the log."""
        if self._log is not None:
            self._log.close()


def prompt_file(settings: PpoSettings) -> Path:
    """The file of texts that the run asks about; UsageError where no data folder is given."""
    return required_folder(settings.data) / settings.prompts


def _fingerprint(
    settings: PpoSettings, queries: Sequence[Query], *, reward: Reward, start: Adapter | None
) -> str:
    decisive = {key: value for key, value in asdict(settings).items() if key not in FREE}
    origin = dict(start.manifest.files) if start is not None else {}
    content = [decisive, reward.formula, sorted(reward.models), origin, [query.ids for query in queries]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _manifest(
    settings: PpoSettings, *, template: Template, base: Path, reward: Reward, queries: Sequence[Query]
) -> Manifest:
    values = {key: value for key, value in asdict(settings).items() if key not in PLACES}
    return Manifest(
        kind="adapter",
        name=settings.name,
        version="0.1.0",
        licence="Apache-2.0",
        files={},
        **identity_of(base),
        template=template.literal,
        scripts=("Latin",),
        settings={**values, "reward": reward.formula},
        data=[{"name": settings.prompts, "rows": len(queries), "sha256": sha256_of(prompt_file(settings))}],
        versions=package_versions(),
        seed=settings.seed,
        git=git_commit(),
    )
