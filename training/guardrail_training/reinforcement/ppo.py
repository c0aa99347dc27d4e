"""Trains an adapter on rewards: PPO, or RLOO or GRPO, for causal and encoder-decoder models.

Run it with ``guardrail-train ppo --recipe training/recipes/ppo-rewriter.toml --data FOLDER --out runs/ppo``;
the same command continues an interrupted run. One base serves as policy (adapter on), reference (adapter off,
with the SFT adapter merged into it if there is one) and value function (a head on the policy's states).

PPO is Schulman et al. 2017 (arXiv 1707.06347) as fine-tuning of language models uses it (Ziegler et al. 2019,
arXiv 1909.08593; Huang et al. 2024, arXiv 2403.17031). Left out: a value model of its own (the head costs no
pass), top-k and top-p in sampling (the ratio would be wrong), scaling scores by their running deviation (the
rewards here are bounded).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from guardrail.errors import ConfigError, PluginError
from guardrail.manifest import Template
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail_training import modeling
from guardrail_training.checkpoint import stop_on_signals
from guardrail_training.processes import Processes
from guardrail_training.provenance import model_folder, weights_sha256
from guardrail_training.reinforcement.adapters import merge
from guardrail_training.reinforcement.figures import rollout_figures
from guardrail_training.reinforcement.kl_control import KlControl
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.queries import drawn, load_queries
from guardrail_training.reinforcement.rollouts import assess, collect
from guardrail_training.reinforcement.run_folder import RunFolder, prompt_file
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.reinforcement.updates import DivergedError, update
from guardrail_training.rewards.algebra import Reward
from guardrail_training.rewards.independence import check_independent
from guardrail_training.runlog import progress_bar
from guardrail_training.sft import learning_rate

__all__ = ["PpoReport", "PpoSettings", "run"]

ADAM_EPSILON = 1e-5  # arXiv 2403.17031, detail 9
LAST_GOOD = "last-good"


@dataclass(frozen=True, slots=True)
class PpoReport:
    """How a run ended: steps taken of all, last mean score and KL, and the signal that stopped it if any."""

    step: int
    steps: int
    score: float | None
    kl: float | None
    stopped_by: str | None

    @property
    def finished(self) -> bool:
        """Whether every step was taken."""
        return self.step == self.steps


def run(settings: PpoSettings, *, reward: Reward | None = None) -> PpoReport:
    """Trains, or continues, the run in ``settings.out`` and returns how it ended.

    ``reward`` takes the place of the settings' formula. Whatever can be wrong is an error before the first
    step. SIGINT and SIGTERM finish the step, write a checkpoint and return. A run that diverges raises
    DivergedError, one whose reward is no finite number PluginError; both leave the last adapter that was
    measured and found in order in ``<out>/last-good``.
    """
    # 1. Everything that can be wrong, before anything is expensive.
    processes = Processes(can_shard=True)
    processes.require_multiple(settings.rows, setting="batch_size * samples_per_prompt")
    processes.require_multiple(settings.minibatch_size, setting="minibatch_size")
    processes.require_multiple(settings.rows % settings.minibatch_size, setting="an epoch's last mini-batch")
    base = model_folder(settings.base)
    start = read_adapter(settings.adapter) if settings.adapter else None
    if start is not None:
        start.manifest.check_base(weights_sha256(base))
    template = _template(settings, start)
    dtype = modeling.resolve_dtype(settings.dtype)
    tokenizer = modeling.load_ending_tokenizer(base)
    queries = load_queries(
        prompt_file(settings),
        field=settings.field,
        template=template,
        tokenizer=tokenizer,
        least_characters=settings.least_characters,
        most_characters=settings.most_characters,
        max_tokens=settings.max_prompt_tokens,
    )
    if settings.threads:
        torch.set_num_threads(settings.threads)
    reward = reward or _formula(settings.reward)
    check_independent(reward)

    # 2. Frozen base with the starting adapter in it, fresh adapter and value head; then an earlier state.
    torch.manual_seed(settings.seed)
    learner = _learner(
        settings, base=base, start=start, pad_id=tokenizer.pad_token_id, dtype=dtype, processes=processes
    )
    optimizer = _optimizer(learner, settings)
    control = KlControl(
        coefficient=settings.kl_coefficient,
        target=settings.kl_target if settings.kl_control == "adaptive" else None,
        horizon=settings.kl_horizon,
    )
    folder = RunFolder(
        settings,
        reward=reward,
        queries=queries,
        template=template,
        start=start,
        base=base,
        processes=processes,
    )
    first = folder.resume(learner, optimizer, control)

    # 3. Steps.
    step, figures = first, dict[str, float]()
    good, good_step = _trained(learner), first
    with stop_on_signals() as stop, progress_bar("score", shown=processes.is_first) as progress:
        if processes.is_first:
            progress.console.print(str(modeling.count_parameters(learner)), highlight=False)
        task = progress.add_task("ppo", total=settings.steps, completed=first, score=float("nan"))
        for step in range(first + 1, settings.steps + 1):
            started = time.perf_counter()
            rate = _set_rates(optimizer, settings, step=step)
            try:
                # 4. Responses under the policy as it stands, and what they are worth.
                asked = drawn(queries, step=step, count=settings.batch_size, seed=settings.seed)
                rollout = collect(
                    learner,
                    asked,
                    reward=reward,
                    tokenizer=tokenizer,
                    settings=settings,
                    step=step,
                    processes=processes,
                )
                experience = assess(rollout, settings=settings, coefficient=control.coefficient)
                figures = rollout_figures(rollout, experience, coefficient=control.coefficient)
                _check_in_order(figures, settings)
                # This policy has just been measured. What the update makes of it has not.
                good, good_step = _trained(learner), step - 1
                collected = time.perf_counter()

                # 5. The policy moves; then the KL coefficient.
                moved = update(
                    learner,
                    optimizer,
                    rollout,
                    experience,
                    settings=settings,
                    step=step,
                    processes=processes,
                )
            except (DivergedError, PluginError) as error:
                _restore(learner, good)
                kept = folder.keep_adapter(learner, LAST_GOOD, step=good_step)
                raise _ending(error, step=step, kept=kept) from None
            figures |= moved.figures | {
                "ppo/updates_taken": moved.taken,
                "ppo/learning_rate": rate,
                "time/rollout": round(collected - started, 3),
                "time/update": round(time.perf_counter() - collected, 3),
            }
            control.update(figures["objective/kl"], responses=settings.rows)
            folder.add(figures, step=step)
            progress.update(task, completed=step, score=figures["ppo/mean_scores"])

            # 6. Now and then an adapter to choose from, and the state to continue from.
            is_last = step == settings.steps
            stopped = processes.any(stop.signal is not None)
            if is_last or step % settings.keep_every == 0:
                folder.keep_adapter(learner, f"step-{step}", step=step, figures=figures)
            if is_last or stopped or step % settings.checkpoint_every == 0:
                folder.save_state(learner, optimizer, control, step=step)
            if stopped:
                break
    folder.close()
    return PpoReport(
        step=step,
        steps=settings.steps,
        score=figures.get("ppo/mean_scores"),
        kl=figures.get("objective/kl"),
        stopped_by=stop.signal,
    )


def _template(settings: PpoSettings, start: Adapter | None) -> Template:
    if settings.template is not None:
        return Template(settings.template)
    if start is None:
        raise ConfigError(
            "without an adapter to start from, template must be given: a prompt with one {text}"
        )
    return start.template


def _formula(formula: str) -> Reward:
    # Loads models, so it is imported where a formula is given in words.
    from guardrail_training.rewards.formula import read_formula

    return read_formula(formula)


def _learner(
    settings: PpoSettings,
    *,
    base: Path,
    start: Adapter | None,
    pad_id: int,
    dtype: torch.dtype,
    processes: Processes,
) -> Learner:
    model = modeling.load_base(base, dtype=dtype)
    if start is not None:
        merge(model, start)
    adapted = modeling.add_lora(
        model, rank=settings.rank, alpha=settings.alpha, dropout=0.0, targets=settings.targets
    )
    processes.shard(adapted)
    return Learner(
        adapted,
        pad_id=pad_id,
        temperature=settings.temperature,
        dtype=dtype,
        has_values=settings.estimator == "ppo",
        recomputes=settings.gradient_checkpointing,
    )


def _optimizer(learner: Learner, settings: PpoSettings) -> torch.optim.Optimizer:
    groups = [{"params": modeling.trainable_parameters(learner.model), "peak": settings.learning_rate}]
    if learner.value_head is not None:
        groups.append({"params": list(learner.value_head.parameters()), "peak": settings.value_learning_rate})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, eps=ADAM_EPSILON, weight_decay=0.0)


def _set_rates(optimizer: torch.optim.Optimizer, settings: PpoSettings, *, step: int) -> float:
    """Sets each group's rate for this step, from 1; returns the policy's."""
    share = learning_rate(step - 1, steps=settings.steps, warmup=settings.warmup, peak=1.0)
    if not settings.decays and step > math.ceil(settings.steps * settings.warmup):
        share = 1.0
    for group in optimizer.param_groups:
        group["lr"] = share * group["peak"]
    return share * settings.learning_rate


def _check_in_order(figures: dict[str, float], settings: PpoSettings) -> None:
    broken = sorted(name for name, value in figures.items() if not math.isfinite(value))
    if broken:
        raise DivergedError(f"{', '.join(broken)} is no finite number")
    if abs(figures["objective/kl"]) > settings.divergence_kl:
        raise DivergedError(
            f"objective/kl is {figures['objective/kl']:.1f} nats per response, beyond divergence_kl = "
            f"{settings.divergence_kl:g}"
        )


def _ending(error: DivergedError | PluginError, *, step: int, kept: Path) -> DivergedError | PluginError:
    """The error as the run's user needs it: at which step, what is left, what to do."""
    said = f"step {step}: {error}; the last good adapter is in {kept}; "
    if isinstance(error, DivergedError):
        return DivergedError(said + "lower learning_rate, or raise kl_coefficient")
    return PluginError(
        said + "mend the reward, and the same command goes on from the last checkpoint", reason=error.reason
    )


def _trained(learner: Learner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in modeling.trainable_parameters(learner)]


def _restore(learner: Learner, weights: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, kept in zip(modeling.trainable_parameters(learner), weights, strict=True):
            parameter.copy_(kept)
