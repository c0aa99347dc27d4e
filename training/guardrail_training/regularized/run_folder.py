"""What a regularized run leaves in its folder: settings, metrics, models, and the state to continue from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.adapter import Adapter
from guardrail_training.checkpoint import load_checkpoint, save_checkpoint
from guardrail_training.modeling import trainable_parameters
from guardrail_training.nado.auxiliary import Auxiliary, save_auxiliary
from guardrail_training.processes import Processes
from guardrail_training.provenance import weights_sha256
from guardrail_training.regularized.control import DualAscent
from guardrail_training.regularized.corpus import Mixture
from guardrail_training.regularized.samples import Samples
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.adapters import save_stacked
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.rewards.algebra import Reward
from guardrail_training.runlog import MetricLog, git_commit, package_versions, write_run
from guardrail_training.sft import identity_of

__all__ = ["PLAIN_TEMPLATE", "RunFolder"]

PLAIN_TEMPLATE = "{text}"
"""The template of a model that goes on writing a text."""
PLACES = frozenset({"base", "adapter", "out", "data"})
# Where files lie, what is in memory at a time and how often something is kept changes no number.
FREE = PLACES | {"threads", "keep_every", "microbatch_size"}
IN_MANIFEST = ("loss/language_model", "samples/failed")


class RunFolder:
    """The folder of a run. In a distributed run the first process alone writes; all read."""

    def __init__(
        self,
        settings: RegularizedSettings,
        *,
        reward: Reward,
        mixture: Mixture,
        start: Adapter | None,
        base: Path,
        data: Path,
        processes: Processes,
    ) -> None:
        self._settings, self._start, self._out = settings, start, Path(settings.out)
        self._reward, self._mixture, self._writes = reward, mixture, processes.is_first
        self._base_sha256 = weights_sha256(base)
        self._fingerprint = _fingerprint(settings, mixture, reward=reward, start=start)
        self._manifest = _manifest(settings, mixture, base=base, data=data, reward=reward)
        self._log: MetricLog | None = None

    def resume(
        self, learner: Learner, auxiliary: Auxiliary, optimizer: torch.optim.Optimizer, control: DualAscent
    ) -> tuple[int, list[Samples]]:
        """Puts back an earlier state; returns its iteration, 0 where there is none, and its samples.

        Opens the log. Raises ConfigError where the folder holds a run with other settings or data.
        """
        models = _both(learner, auxiliary)
        iteration = load_checkpoint(
            self._out, model=models, optimizer=optimizer, fingerprint=self._fingerprint, control=control
        )
        drawn = self._draws_until(iteration) if iteration and self._settings.draws else 0
        found = [Samples.of(load_file(path)) for path in map(self._samples, range(drawn)) if path.is_file()]
        if self._writes:
            self._out.mkdir(parents=True, exist_ok=True)
            # Step 0 is that of the first samples, which a run without a checkpoint draws again.
            self._log = MetricLog(self._out, resumed_from=iteration * self._settings.steps or -1)
            facts = {
                "guided_texts": len(self._mixture.guided),
                "general_texts": len(self._mixture.general),
                "queries": len(self._mixture.queries),
                "reward": self._reward.formula,
                "trainable_parameters": sum(p.numel() for p in trainable_parameters(learner)),
                "auxiliary_parameters": sum(p.numel() for p in auxiliary.parameters()),
                "parameters": sum(p.numel() for p in learner.parameters()),
                "torch_threads": torch.get_num_threads(),
                "fingerprint": self._fingerprint,
            }
            write_run(self._out, settings=self._settings, facts=facts)
        return iteration, found

    def add(self, figures: Mapping[str, float], *, step: int) -> None:
        """Logs a step."""
        if self._log is not None:
            self._log.add(figures, step=step)

    def keep(
        self, learner: Learner, auxiliary: Auxiliary, *, step: int, figures: Mapping[str, float]
    ) -> None:
        """Writes adapter and auxiliary model after ``step`` into ``<out>/step-N``."""
        if not self._writes:
            return
        folder = self._out / f"step-{step}"
        files = save_stacked(learner.model, folder, start=self._start)
        replace(
            self._manifest,
            files={path.name: sha256_of(path) for path in files},
            metrics={
                "step": step,
                **{key: round(figures[key], 4) for key in IN_MANIFEST if key in figures},
            },
        ).save(folder)
        if self._settings.draws:
            save_auxiliary(auxiliary, folder, base_sha256=self._base_sha256)

    def save_state(
        self,
        learner: Learner,
        auxiliary: Auxiliary,
        optimizer: torch.optim.Optimizer,
        control: DualAscent,
        *,
        samples: Sequence[Samples],
        iteration: int,
    ) -> None:
        """Writes the state after an iteration, from which ``resume`` continues to the bit."""
        if not self._writes:
            return
        drawn = self._draws_until(iteration)
        numbers = range(drawn - len(samples), drawn)
        for number, part in zip(numbers, samples, strict=True):
            # Those of iterations before the last checkpoint are there already.
            if number >= iteration - 1 or not self._samples(number).is_file():
                state = {name: value.contiguous() for name, value in part.state_dict().items()}
                save_file(state, self._samples(number))
        save_checkpoint(
            self._out,
            step=iteration,
            model=_both(learner, auxiliary),
            optimizer=optimizer,
            fingerprint=self._fingerprint,
            control=control,
        )
        # Only now does no checkpoint need the earlier ones.
        kept = {self._samples(number) for number in numbers}
        for path in self._out.glob("samples-*.safetensors"):
            if samples and path not in kept:
                path.unlink()

    def close(self) -> None:
        """Flushes the log."""
        if self._log is not None:
            self._log.close()

    def _draws_until(self, iteration: int) -> int:
        """How often samples were drawn when an iteration is over; the last parallel one draws none."""
        settings = self._settings
        return min(iteration, settings.iterations - 1) + 1 if settings.overlaps else iteration

    def _samples(self, number: int) -> Path:
        return self._out / f"samples-{number}.safetensors"


def _both(learner: Learner, auxiliary: Auxiliary) -> nn.ModuleDict:
    return nn.ModuleDict({"learner": learner, "auxiliary": auxiliary})


def _fingerprint(
    settings: RegularizedSettings, mixture: Mixture, *, reward: Reward, start: Adapter | None
) -> str:
    decisive = {key: value for key, value in asdict(settings).items() if key not in FREE}
    origin = dict(start.manifest.files) if start is not None else {}
    passages = (*mixture.guided, *mixture.general, *mixture.known)
    texts = [[passage.prompt, passage.response] for passage in passages]
    prompts = [query.ids for query in mixture.queries]
    content = [decisive, reward.formula, sorted(reward.models), origin, texts, prompts]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _manifest(
    settings: RegularizedSettings, mixture: Mixture, *, base: Path, data: Path, reward: Reward
) -> Manifest:
    values = {key: value for key, value in asdict(settings).items() if key not in PLACES}
    sources = {settings.guided: len(mixture.guided), settings.general: len(mixture.general)}
    if settings.draws and settings.known_texts:
        sources |= dict.fromkeys(settings.known_texts, settings.known_rows // len(settings.known_texts))
    return Manifest(
        kind="adapter",
        name=settings.name,
        version="0.1.0",
        licence="Apache-2.0",
        files={},
        **identity_of(base),
        template=settings.template or PLAIN_TEMPLATE,
        scripts=("Latin",),
        settings={**values, "reward": reward.formula},
        data=[
            {"name": name, "rows": rows, "sha256": sha256_of(data / name)}
            for name, rows in sources.items()
            if name
        ],
        versions=package_versions(),
        seed=settings.seed,
        git=git_commit(),
    )
