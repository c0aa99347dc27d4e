"""The skeleton of every run: its folder, its log, its state, what it keeps, and what ends it.

    run = Run(settings, manifest=..., fingerprint=..., processes=..., best="dev_loss")
    run.resume(model, optimizer, facts={...})
    with run:
        for step in run.steps(total):
            ...
            run.log({"loss": loss}, step=step)
            if measured:
                run.evaluated({"dev_loss": dev_loss}, step=step)
                run.keep(write, step=step, metrics={"dev_loss": dev_loss})
    return run.report()

A trainer says what its steps are; when a state is written, which models stay on disk, what a signal does and
what the log looks like is decided here. Of several processes the first alone writes; all read.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.progress import TaskID
from torch import nn

from guardrail.errors import FailureError
from guardrail.manifest import FILENAME, Manifest, sha256_of
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail_training.callbacks import Callback
from guardrail_training.checkpoint import (
    Stateful,
    StopRequest,
    load_checkpoint,
    save_checkpoint,
    stop_on_signals,
)
from guardrail_training.modeling import count_parameters
from guardrail_training.processes import Processes
from guardrail_training.provenance import weights_sha256
from guardrail_training.runlog import (
    MetricLog,
    git_commit,
    note_seconds,
    noted_seconds,
    package_versions,
    progress_bar,
    write_run,
)
from guardrail_training.settings import TrainingSettings
from guardrail_training.trackers import Trackers

__all__ = [
    "Callback",
    "DivergedError",
    "Report",
    "Run",
    "clip_gradients",
    "combined_licence",
    "fingerprint_of",
    "identity_of",
    "manifest_of",
    "pad_token_of",
    "starting_adapter",
]


UNSTATED = "NOASSERTION"
"""SPDX's word for a licence that nobody has named."""


class DivergedError(FailureError):
    """A run cannot continue: its loss is not finite any more, or the policy is too far from its reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a run ended: steps taken of all, its last metrics by name, and what ended it before its last step.

    ``stopped_by`` is a signal's name; ``ended_early`` says that no evaluation was better for ``patience``.
    """

    step: int
    steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    stopped_by: str | None = None
    ended_early: bool = False

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do."""
        return self.steps > 0 and (self.step == self.steps or self.ended_early)

    def __str__(self) -> str:
        metrics = "".join(
            f", {name} {f'{value:.4f}'.removesuffix('.0000')}" for name, value in self.metrics.items()
        )
        early = "; no evaluation was better for long enough" if self.ended_early else ""
        return f"step {self.step} of {self.steps}{metrics}{early}"


@dataclass(slots=True)
class Kept:
    """The best model so far, by its step, and how many evaluations since were no better."""

    lower_is_better: bool
    step: int = -1
    value: float = 0.0
    worse: int = 0

    def update(self, value: float, *, step: int) -> None:
        """Takes notice of an evaluation."""
        if self.step < 0 or (value < self.value if self.lower_is_better else value > self.value):
            self.step, self.value, self.worse = step, value, 0
        else:
            self.worse += 1

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint has to keep."""
        return {"step": self.step, "value": self.value, "worse": self.worse}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Puts back what ``state_dict`` gave."""
        self.step, self.value, self.worse = int(state["step"]), state["value"], int(state["worse"])


class Run:
    """One run of a trainer in its folder ``settings.out``.

    ``best`` names the metric by which a model is the best one; with None it is the last. ``metric`` is what
    the progress bar shows.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        *,
        manifest: Manifest,
        fingerprint: str,
        processes: Processes,
        metric: str = "loss",
        best: str | None = None,
        lower_is_better: bool = True,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.settings, self.out, self.writes = settings, Path(settings.out), processes.is_first
        self.step, self.total = 0, 0
        self.metrics: dict[str, float] = {}
        self._manifest, self._fingerprint, self._processes = manifest, fingerprint, processes
        self._metric, self._best, self._kept = metric, best, Kept(lower_is_better)
        self._callbacks: tuple[Callback, ...] = tuple(callbacks)
        self._log: MetricLog | None = None
        self._signal, self._ended_early = StopRequest(), False
        self._around_state: Callable[[int], AbstractContextManager[None]] = lambda step: nullcontext()
        self._task: TaskID | None = None
        self._stack = ExitStack()
        self._seconds_before, self._started = 0.0, time.perf_counter()

    def resume(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        control: Stateful | None = None,
        facts: Mapping[str, Any],
        steps_logged: int = 1,
        around_state: Callable[[int], AbstractContextManager[None]] = lambda step: nullcontext(),
    ) -> int:
        """Puts back an earlier state and returns its step, 0 if there is none; opens log and run.json.

        ``control`` is a further part of the state, which is written inside ``around_state``, and a step has
        ``steps_logged`` of the log's. Raises ConfigError for the folder of a run with other settings
        or data.
        """
        self._model, self._optimizer, self._control = model, optimizer, control
        self._around_state = around_state
        self.step = load_checkpoint(
            self.out,
            model=model,
            optimizer=optimizer,
            fingerprint=self._fingerprint,
            control=control,
            kept=self._kept,
        )
        if self.writes:
            self.out.mkdir(parents=True, exist_ok=True)
            # Step 0 is that of what comes before the first one, which a run without a state does again.
            self._log = MetricLog(self.out, resumed_from=self.step * steps_logged or -1)
            self.metrics = self._log.last()
            self._seconds_before = noted_seconds(self.out) if self.step else 0.0
            count = count_parameters(model)
            known = {
                "trainable_parameters": count.trainable,
                "parameters": count.total,
                "optimizer": type(optimizer).__name__,
                "torch_threads": torch.get_num_threads(),
                "processes": self._processes.count,
                "sharded": self._processes.is_sharded,
                "fingerprint": self._fingerprint,
                "base_sha256": self._manifest.trained_on,
            }
            write_run(self.out, settings=self.settings, facts={**known, **facts})
            if self.settings.track:
                trackers = Trackers(self.settings.track, folder=self.out, settings=self.settings.described())
                self._callbacks = (*self._callbacks, trackers)
        return self.step

    def __enter__(self) -> Run:
        self._started = time.perf_counter()
        self._signal = self._stack.enter_context(stop_on_signals())
        self._bar = self._stack.enter_context(progress_bar(self._metric, shown=self.writes))
        if self.writes:
            self._bar.console.print(str(count_parameters(self._model)), highlight=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._note_seconds()
        self._tell(lambda callback: callback.on_end())
        if self._log is not None:
            self._log.close()

    @property
    def stopped_by(self) -> str | None:
        """The signal that asks the run to end after its step."""
        return self._signal.signal

    def steps(self, total: int, *, shown: int | None = None) -> Iterator[int]:
        """The steps still to be taken, from 1 on. After each of them the state is written if it is due, and
        the run ends if it was asked to or is no better for ``patience`` evaluations."""
        self.total = total
        fields: dict[str, Any] = {self._metric: float("nan")}
        self._task = self._bar.add_task(
            self.settings.trainer,
            total=shown or total,
            completed=self.step * (shown or total) // total,
            **fields,
        )
        self._ended_early = self._is_exhausted
        while self.step < total and not self._ended_early:
            self.step += 1
            yield self.step
            self._ended_early = self._is_exhausted and self.step < total
            is_over = self._processes.any(self.stopped_by is not None) or self._ended_early
            if is_over or self.step == total or self.step % self.settings.checkpoint_every == 0:
                self._save_state()
            if is_over:
                break

    def log(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Notes what a step came to."""
        self.metrics |= metrics
        if self._log is not None:
            self._log.add(metrics, step=step)
        self.show(step, metrics.get(self._metric))
        self._tell(lambda callback: callback.on_step(step, metrics))

    def show(self, step: int, value: float | None) -> None:
        """Moves the progress bar."""
        if self._task is not None:
            shown: dict[str, Any] = {} if value is None else {self._metric: value}
            self._bar.update(self._task, completed=step, **shown)

    def evaluated(self, metrics: Mapping[str, float], *, step: int) -> None:
        """Notes what the model was measured at; by the metric ``best`` it is the best so far or not."""
        self.metrics |= metrics
        if self._log is not None:
            self._log.add(metrics, step=step)
        self._tell(lambda callback: callback.on_evaluate(step, metrics))

    def keep(
        self,
        write: Callable[[Path], Sequence[Path]],
        *,
        step: int,
        metrics: Mapping[str, float],
        name: str | None = None,
        is_base: bool = False,
    ) -> Path:
        """Writes a model with its manifest into ``<out>/step-N``, or into ``name``; returns the folder.

        ``write`` puts the files there and returns those that the manifest lists. Models that are neither the
        best nor the last are removed beyond ``keep_models``; one with a name of its own stays.
        """
        folder = self.out / (name or f"step-{step}")
        if self._best is not None and self._best in metrics and name is None:
            self._kept.update(metrics[self._best], step=step)
        if not self.writes:
            return folder
        files = write(folder)
        manifest = replace(
            self._manifest,
            files={path.name: sha256_of(path) for path in files},
            metrics={"step": step, **{name: round(value, 4) for name, value in metrics.items()}},
        )
        if is_base:
            own = weights_sha256(folder)
            manifest = replace(manifest, kind="base", trained_on=own, compatible_bases={})
        manifest.save(folder)
        if name is None:
            self._remove_surplus(last=step)
        self._tell(lambda callback: callback.on_save(step, folder))
        return folder

    def report(self, *names: str) -> Report:
        """How the run ended, with the last values of the metrics named."""
        return Report(
            step=self.step,
            steps=self.total,
            metrics={name: self.metrics[name] for name in names if name in self.metrics},
            stopped_by=self.stopped_by,
            ended_early=self._ended_early,
        )

    @property
    def _is_exhausted(self) -> bool:
        patience = self.settings.patience
        return patience is not None and self._kept.worse >= patience

    def _save_state(self) -> None:
        if not self.writes:
            return
        with self._around_state(self.step):
            save_checkpoint(
                self.out,
                step=self.step,
                model=self._model,
                optimizer=self._optimizer,
                fingerprint=self._fingerprint,
                control=self._control,
                kept=self._kept,
            )
        self._note_seconds()

    def _note_seconds(self) -> None:
        if self._log is not None:
            note_seconds(self.out, self._seconds_before + time.perf_counter() - self._started)

    def _remove_surplus(self, *, last: int) -> None:
        bound = self.settings.keep_models
        best = self._kept.step if self._kept.step >= 0 else last
        others = sorted(step for step in self._steps_on_disk() if step not in (best, last))
        spared = len({best, last})
        for step in others[: max(0, len(others) - max(0, bound - spared))] if bound else []:
            shutil.rmtree(self.out / f"step-{step}")

    def _steps_on_disk(self) -> list[int]:
        names = [path.name.removeprefix("step-") for path in self.out.glob("step-*") if path.is_dir()]
        return [int(name) for name in names if name.isdecimal()]

    def _tell(self, tell: Callable[[Callback], object]) -> None:
        if self.writes:
            for callback in self._callbacks:
                tell(callback)


def clip_gradients(
    parameters: Sequence[nn.Parameter], limit: float, *, error: Callable[[], Exception]
) -> float:
    """Clips the gradient to a norm, 0: to none, and returns that before; ``error`` if it is not finite."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit or float("inf"))
    if not bool(torch.isfinite(norm)):
        raise error()
    return norm.item()


def starting_adapter(place: str | Path | None, *, base: Path) -> Adapter | None:
    """The adapter that a run continues from, None for none; ManifestError if it is for another base."""
    if place is None:
        return None
    start = read_adapter(place)
    start.manifest.check_base(weights_sha256(base))
    return start


def pad_token_of(settings: TrainingSettings, start: Adapter | None) -> str:
    """What to pad with if the tokenizer does not say: the setting, or what the start was padded with."""
    return settings.pad_token or str(start.manifest.settings.get("pad_token", "") if start else "")


def fingerprint_of(settings: Mapping[str, Any], start: Adapter | None, content: Iterable[object]) -> str:
    """One hash of all that decides a run; ``content`` (its data) is gone through once."""
    origin = [] if start is None else [dict(start.manifest.files), start.template.literal]
    digest = hashlib.sha256(json.dumps([settings, origin], sort_keys=True).encode())
    for part in content:
        digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def identity_of(base: Path) -> dict[str, Any]:
    """What an adapter's manifest says of the base it was trained on: ``trained_on``, ``compatible_bases``."""
    weights = weights_sha256(base)
    # A converted base names the file it was converted from: that one is published, the conversion is not.
    origin = Manifest.load(base, verify=False).trained_on if (base / FILENAME).is_file() else None
    return {
        "trained_on": origin or weights,
        "compatible_bases": {weights: "measured"} if origin not in (None, weights) else {},
    }


def combined_licence(*licences: str) -> str:
    """One SPDX expression of all that apply, each once; empty ones are none."""
    parts = [part for licence in licences for part in licence.split(" AND ") if part]
    return " AND ".join(dict.fromkeys(parts))


def manifest_of(
    settings: TrainingSettings,
    *,
    base: Path,
    template: str,
    data: Sequence[Mapping[str, Any]],
    start: Adapter | None = None,
    more: Mapping[str, Any] | None = None,
) -> Manifest:
    """The manifest of a run's adapters, but for their files and metrics; ``more`` joins its settings.

    A starting adapter's data and licence are the result's too, and ``started_from`` in its settings names it.
    """
    origin: dict[str, Any] = {}
    if start is not None:
        identity = ("name", "version", "licence", "files")
        origin["started_from"] = {name: getattr(start.manifest, name) for name in identity}
    known = [dict(each) for each in (start.manifest.data if start is not None else ())]
    own = [{**each, "licence": settings.licence or UNSTATED} for each in data]
    of_base = Manifest.load(base, verify=False).licence if (base / FILENAME).is_file() else UNSTATED
    return Manifest(
        kind="adapter",
        name=settings.name or f"{Path(settings.base).name}-{settings.trainer}",
        version="0.1.0",
        licence=combined_licence(
            of_base, start.manifest.licence if start is not None else "", settings.licence or UNSTATED
        ),
        files={},
        **identity_of(base),
        template=template,
        scripts=start.manifest.scripts if start is not None else ("Latin",),
        settings={
            **settings.described(),
            "pad_token": pad_token_of(settings, start),
            **origin,
            **(more or {}),
        },
        data=[*known, *(each for each in own if each not in known)],
        versions=package_versions(),
        seed=settings.seed,
        git=git_commit(),
    )
