"""Fine-tunes a language model on a mixture corpus while a regularizer holds it to a constraint.

Run it with ``guardrail-train regularized --recipe training/recipes/toxigen-regularized.toml --data FOLDER``;
the same command continues an interrupted run from its last whole iteration. With the parallel schedule
``torchrun --nproc_per_node=3`` runs sampling, auxiliary model and language model side by side.

    L = L_LM(mixture) + lambda * sum_i KL(q(. | x, y_<i) || p(. | x, y_<i)),    q held constant

with q the distribution closest to the language model in which no response breaks the constraint (Meng et al.
2024, arXiv 2410.05559; its auxiliary model is NADO, arXiv 2205.14219). docs/regularized.md has the equations
and what is known of the paper's settings. Left out: soft constraints E_q[C] >= r (the paper tries the hard
one alone), DiNADO's parameterisation, encoder-decoder models.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guardrail.errors import ConfigError, FailureError
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail_training import modeling
from guardrail_training.checkpoint import stop_on_signals
from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.processes import Processes
from guardrail_training.provenance import model_folder, weights_sha256
from guardrail_training.records import required_folder
from guardrail_training.regularized.control import DualAscent
from guardrail_training.regularized.corpus import load_mixture
from guardrail_training.regularized.filtering import keep_successes
from guardrail_training.regularized.parts import ModelParts
from guardrail_training.regularized.run_folder import RunFolder
from guardrail_training.regularized.samples import Samples
from guardrail_training.regularized.schedules import Schedule
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.adapters import merge
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.rewards.algebra import Reward
from guardrail_training.rewards.independence import check_independent
from guardrail_training.runlog import progress_bar

__all__ = ["RegularizedReport", "RegularizedSettings", "run"]


@dataclass(frozen=True, slots=True)
class RegularizedReport:
    """How a run ended: iterations done of all, the last share of failures, and the signal that stopped it."""

    iteration: int
    iterations: int
    failed: float | None
    stopped_by: str | None

    @property
    def finished(self) -> bool:
        """Whether every iteration was done."""
        return self.iteration == self.iterations


def run(settings: RegularizedSettings, *, reward: Reward | None = None) -> RegularizedReport:
    """Trains, or continues, the run in ``settings.out`` and returns how it ended.

    ``reward`` takes the place of the settings' formula. Whatever can be wrong is an error before the first
    sample. SIGINT and SIGTERM finish the iteration, write a checkpoint and return. An auxiliary model that
    cannot tell successes from failures raises FailureError before it teaches anything.
    """
    # 1. Everything that can be wrong, before anything is expensive.
    processes = Processes()
    if settings.method != "regularized" and processes.count > 1:
        raise ConfigError(f"method {settings.method} runs in one process, got {processes.count}")
    base, data = model_folder(settings.base), required_folder(settings.data)
    start = read_adapter(settings.adapter) if settings.adapter else None
    if start is not None:
        start.manifest.check_base(weights_sha256(base))
    dtype = modeling.resolve_dtype(settings.dtype)
    tokenizer = modeling.load_ending_tokenizer(base, pad_token=settings.pad_token)
    mixture = load_mixture(data, settings, tokenizer=tokenizer)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    reward = reward or _formula(settings.reward)
    check_independent(reward)
    if settings.method == "filtering":
        mixture = keep_successes(mixture, reward, settings=settings)

    # 2. Frozen base with the starting adapter in it, fresh adapter, auxiliary model; then an earlier state.
    torch.manual_seed(settings.seed)
    learner = _learner(settings, base=base, start=start, pad_id=tokenizer.pad_token_id, dtype=dtype)
    auxiliary = _auxiliary(learner, settings)
    optimizer = _optimizer(learner, auxiliary, settings)
    control = DualAscent(
        rate=settings.dual_ascent,
        target=settings.toxic_target,
        memory=settings.toxic_memory,
        most=settings.most_multiplier,
    )
    folder = RunFolder(
        settings,
        reward=reward,
        mixture=mixture,
        start=start,
        base=base,
        data=data,
        processes=processes,
    )
    first, samples = folder.resume(learner, auxiliary, optimizer, control)
    parts = ModelParts(
        learner,
        auxiliary,
        optimizer,
        mixture=mixture,
        reward=reward,
        tokenizer=tokenizer,
        settings=settings,
        control=control,
        dtype=dtype,
    )

    # 3. Samples of the starting model, and an auxiliary model that has to know something about them.
    schedule: Schedule[Samples] = Schedule(
        parts,
        parallel=settings.overlaps,
        processes=processes,
        remembers=settings.memory > 0,
    )
    schedule.samples = samples
    failed: float | None = None
    if settings.draws and first == 0:
        failed = _begin(schedule, parts, folder)
        _require_knowledge(parts.figures, settings)

    # 4. Iterations.
    iteration = first
    with stop_on_signals() as stop, progress_bar("loss", shown=processes.is_first) as progress:
        task = progress.add_task(
            settings.method, total=settings.all_steps, completed=first * settings.steps, loss=float("nan")
        )
        parts.on_step = lambda step, loss: progress.update(task, completed=step, loss=loss)
        for iteration in range(first + 1, settings.iterations + 1):
            started = time.perf_counter()
            parts.forget()
            if settings.draws:
                schedule.run(iteration, is_last=iteration == settings.iterations)
                failed = parts.figures.get("samples/failed", failed)
                control.update(failed)
            else:
                parts.tune(iteration, None)
            step = iteration * settings.steps
            seconds = (time.perf_counter() - started) / settings.steps
            figures = parts.figures
            folder.add({**figures, "time/step": round(seconds, 3)}, step=step)

            # 5. Now and then models to choose from; always the state to continue from.
            if iteration == settings.iterations or iteration % settings.keep_every == 0:
                known = figures if failed is None else {**figures, "samples/failed": failed}
                folder.keep(learner, auxiliary, step=step, figures=known)
            folder.save_state(
                learner, auxiliary, optimizer, control, samples=schedule.samples, iteration=iteration
            )
            if processes.any(stop.signal is not None):
                break
    folder.close()
    return RegularizedReport(
        iteration=iteration,
        iterations=settings.iterations,
        failed=failed,
        stopped_by=stop.signal,
    )


def _formula(formula: str) -> Reward:
    # Loads models, so it is imported where a formula is given in words.
    from guardrail_training.rewards.formula import read_formula

    return read_formula(formula)


def _learner(
    settings: RegularizedSettings, *, base: Path, start: Adapter | None, pad_id: int, dtype: torch.dtype
) -> Learner:
    model = modeling.load_base(base, dtype=dtype)
    if model.config.is_encoder_decoder:
        raise ConfigError(f"{type(model).__name__} is no causal language model, which regularized needs")
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := sorted(set(settings.targets) - names):
        raise ConfigError(f"targets {', '.join(missing)}: {type(model).__name__} has no layers of that name")
    if start is not None:
        merge(model, start)
    adapted = modeling.add_lora(
        model, rank=settings.rank, alpha=settings.alpha, dropout=0.0, targets=settings.targets
    )
    # Drawn at another temperature they are weighed back: what is scored is always temperature 1.
    return Learner(adapted, pad_id=pad_id, temperature=1.0, dtype=dtype, has_values=False)


def _auxiliary(learner: Learner, settings: RegularizedSettings) -> Auxiliary:
    base: Any = learner.model.get_base_model()
    return Auxiliary(
        base.get_input_embeddings().weight,
        hidden=settings.auxiliary_hidden,
        blocks=settings.auxiliary_blocks,
        rank=settings.auxiliary_rank,
    )


def _optimizer(
    learner: Learner, auxiliary: Auxiliary, settings: RegularizedSettings
) -> torch.optim.Optimizer:
    """One optimizer for both: parameters without gradient stay as they are, state included."""
    return torch.optim.AdamW(
        [
            {"params": modeling.trainable_parameters(learner), "lr": settings.learning_rate},
            {"params": list(auxiliary.parameters()), "lr": settings.auxiliary_learning_rate},
        ],
        weight_decay=0.0,
    )


def _begin(schedule: Schedule[Samples], parts: ModelParts, folder: RunFolder) -> float:
    """The first samples and what is fitted to them, as step 0 of the log; returns the share of failures."""
    started = time.perf_counter()
    schedule.begin()
    folder.add({**parts.figures, "time/begin": round(time.perf_counter() - started, 3)}, step=0)
    return parts.figures["samples/failed"]


def _require_knowledge(figures: Mapping[str, float], settings: RegularizedSettings) -> None:
    if not settings.least_auc:
        return
    found = figures.get("auxiliary/auc_100")
    if found is None:
        raise FailureError(
            "the oracle calls all held-out responses successes, or all failures: there is nothing to learn "
            "from; choose other prompts or another success_from, or draw for more first_prompts"
        )
    if found < settings.least_auc:
        raise FailureError(
            f"the auxiliary model orders held-out responses with an AUC of {found:.2f}, below least_auc = "
            f"{settings.least_auc:g}: it would teach noise; raise first_prompts or first_auxiliary_steps"
        )
