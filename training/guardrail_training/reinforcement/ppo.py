"""Trains an adapter on rewards: PPO, or RLOO or GRPO, for causal and encoder-decoder models.

Run it with ``guardrail-train ppo --recipe ppo-rewriter --data FOLDER --out runs/ppo``; the same command
continues an interrupted run. One base serves as policy (adapter on), reference (adapter off, with the SFT
adapter merged into it if there is one) and value function (a head on the policy's states).

PPO is Schulman et al. 2017 (arXiv 1707.06347) as fine-tuning of language models uses it (Ziegler et al. 2019,
arXiv 1909.08593; Huang et al. 2024, arXiv 2403.17031). Left out: a value model of its own (the head costs no
pass), top-k and top-p in sampling (the ratio would be wrong), scaling scores by their running deviation (the
rewards here are bounded).

``run`` is the whole algorithm in steps; ``assess`` and ``update`` are its two halves, ``objectives`` its
formulas, ``rollouts`` how responses are drawn, ``policy`` the networks.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from guardrail.errors import ConfigError, PluginError
from guardrail.manifest import Template, sha256_of
from guardrail.rewriters.adapter import Adapter
from guardrail_training import modeling
from guardrail_training.modeling.stacked import merge, save_stacked
from guardrail_training.processes import Processes
from guardrail_training.provenance import model_folder
from guardrail_training.records import required_folder
from guardrail_training.reinforcement.objectives import (
    clipped_policy_loss,
    clipped_value_loss,
    generalised_advantages,
    group_advantages,
    is_clipped,
    is_value_clipped,
    masked_mean,
    masked_variance,
    token_kl,
    token_rewards,
    whiten,
)
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.rollouts import Rollout, chunks_by_length, collect, drawn, load_queries
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Reward
from guardrail_training.rewards.independence import independent_reward
from guardrail_training.run import (
    Callback,
    DivergedError,
    Report,
    Run,
    clip_gradients,
    fingerprint_of,
    manifest_of,
    pad_token_of,
    starting_adapter,
)
from guardrail_training.sft import learning_rate

__all__ = [
    "Experience",
    "KlControl",
    "PpoSettings",
    "UpdateMetrics",
    "assess",
    "minibatches",
    "rollout_metrics",
    "run",
    "update",
]

ADAM_EPSILON = 1e-5  # arXiv 2403.17031, detail 9
GREATEST_ERROR = 0.2
PATIENCE = 1.5  # trl's factor on target_kl
LAST_GOOD = "last-good"
IN_MANIFEST = ("ppo/mean_scores", "objective/kl")


def run(settings: PpoSettings, *, reward: Reward | None = None, callbacks: Sequence[Callback] = ()) -> Report:
    """Trains, or continues, the run in ``settings.out`` and returns how it ended.

    ``reward`` takes the place of the settings' formula. Whatever can be wrong is an error before the first
    step. SIGINT and SIGTERM finish the step, write a checkpoint and return. A run that diverges raises
    DivergedError, one whose reward is not a finite number PluginError; both leave the last adapter that was
    measured as sound in ``<out>/last-good``.
    """
    # 1. Everything that can be wrong, before anything is expensive.
    device = modeling.resolve_device(settings.device)
    processes = Processes(device=device, can_shard=True)
    processes.require_multiple(settings.rows, setting="batch_size * samples_per_prompt")
    processes.require_multiple(settings.minibatch_size, setting="minibatch_size")
    processes.require_multiple(settings.rows % settings.minibatch_size, setting="an epoch's last mini-batch")
    base = model_folder(settings.base)
    start = starting_adapter(settings.adapter, base=base)
    template = _template(settings, start)
    dtype = modeling.resolve_dtype(settings.dtype, device)
    tokenizer = modeling.load_ending_tokenizer(base, pad_token=pad_token_of(settings, start))
    prompts = required_folder(settings.data) / settings.prompts
    queries = load_queries(
        prompts,
        field=settings.field,
        template=template,
        tokenizer=tokenizer,
        min_characters=settings.min_characters,
        max_characters=settings.max_characters,
        max_tokens=settings.max_prompt_tokens,
    )
    if settings.threads:
        torch.set_num_threads(settings.threads)
    reward = independent_reward(settings.reward, reward, device=settings.device)

    # 2. One frozen base with the starting adapter merged into it: that is the reference. A fresh adapter on
    #    top makes the policy, which is the reference until it learns; its head of values says 0.
    torch.manual_seed(settings.seed)
    model = modeling.load_base(base, dtype=dtype, device=processes.loading_device)
    if start is not None:
        merge(model, start)
    adapted = modeling.add_lora(
        model, rank=settings.rank, alpha=settings.alpha, dropout=0.0, targets=settings.targets
    )
    processes.shard(adapted)
    learner = Learner(
        adapted,
        pad_id=tokenizer.pad_token_id,
        temperature=settings.temperature,
        dtype=dtype,
        has_values=settings.estimator == "ppo",
        recomputes=settings.gradient_checkpointing,
        is_sharded=processes.is_sharded,
    )
    optimizer = _optimizer(learner, settings)
    control = KlControl(
        coefficient=settings.kl_coefficient,
        target=settings.kl_target if settings.kl_control == "adaptive" else None,
        horizon=settings.kl_horizon,
    )

    # 3. The run's folder; then the state of an earlier run, if there is one.
    source = {"name": settings.prompts, "rows": len(queries), "sha256": sha256_of(prompts)}
    course = Run(
        settings,
        manifest=manifest_of(
            settings,
            base=base,
            template=template.literal,
            data=[source],
            start=start,
            more={"reward": reward.formula},
        ),
        fingerprint=fingerprint_of(
            settings.decisive(),
            start,
            [reward.formula, sorted(reward.models), *(query.ids for query in queries)],
        ),
        processes=processes,
        metric="ppo/mean_scores",
        best="ppo/mean_scores",
        lower_is_better=False,
        callbacks=callbacks,
    )
    facts = {"queries": len(queries), "reward": reward.formula}
    course.resume(learner, optimizer, control=control, facts=facts)

    good, good_step = _trained(learner), course.step
    with course:
        for step in course.steps(settings.steps):
            started = time.perf_counter()
            rate = _set_rates(optimizer, settings, step=step)
            try:
                # 4. Responses under the policy as it stands, what they are worth, and how much better each
                #    token was than the value function, or the prompt's other responses, had made expect.
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
                metrics = rollout_metrics(rollout, experience, coefficient=control.coefficient)
                _check_in_order(metrics, settings)
                # This policy has just been measured. What the update makes of it has not.
                good, good_step = _trained(learner), step - 1
                collected = time.perf_counter()

                # 5. The policy moves towards what was better, by clipped steps over the same responses.
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
                write = partial(save_stacked, learner.model, start=start)
                folder = course.keep(write, step=good_step, metrics={}, name=LAST_GOOD)
                raise _ending(error, step=step, last_good=folder) from None

            # 6. The KL coefficient steers towards its target: it rises while the policy is further from its
            #    reference than that, and falls while it is nearer (Ziegler et al. 2019, section 2.2).
            metrics |= moved.metrics | {
                "ppo/updates_taken": moved.taken,
                "ppo/learning_rate": rate,
                "time/rollout": round(collected - started, 3),
                "time/update": round(time.perf_counter() - collected, 3),
            }
            control.update(metrics["objective/kl"], responses=settings.rows)
            course.log(metrics, step=step)

            # 7. Now and then an adapter to choose from: for the untouched base, the starting adapter in it.
            if step == settings.steps or step % settings.keep_every == 0:
                course.keep(
                    partial(save_stacked, learner.model, start=start),
                    step=step,
                    metrics={name: metrics[name] for name in IN_MANIFEST},
                )
    return course.report(*IN_MANIFEST)


@dataclass(frozen=True, slots=True, eq=False)
class Experience:
    """What the updates of a step read, ``(rows, time)``: returns is None without a value function."""

    advantages: Tensor
    returns: Tensor | None
    kl: Tensor
    rewards: Tensor


def assess(rollout: Rollout, *, settings: PpoSettings, coefficient: float) -> Experience:
    """Advantages and returns of a rollout under a KL coefficient.

    RLOO and GRPO see a response as one action: its reward is its score less the KL penalty of all its tokens,
    and every token gets its advantage. (The GRPO paper puts the KL into the loss; here it stands in the
    reward for all three.)
    """
    # 1. Every token pays for leaving the reference; the last one gets the response's score.
    mask = rollout.responses.mask
    scores = torch.from_numpy(rollout.scored.total)
    scores = scores - settings.missing_eos_penalty * ~rollout.responses.ended
    kl = token_kl(rollout.policy.logprobs, rollout.reference, estimator=settings.kl_estimator) * mask
    rewards = token_rewards(kl, scores, mask, coefficient=coefficient)
    if settings.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)

    # 2. Without a value function the prompt's other responses are what a response is compared with.
    if rollout.policy.values is None:
        whole = group_advantages(
            rewards.sum(dim=1),
            group=settings.samples_per_prompt,
            standardise=settings.estimator == "grpo",
        )
        return Experience(advantages=whole[:, None] * mask, returns=None, kl=kl, rewards=rewards)

    # 3. With one, generalised advantage estimation; the value function's targets are advantage plus value.
    raw = generalised_advantages(
        rewards, rollout.policy.values, mask, gamma=settings.gamma, gae_lambda=settings.gae_lambda
    )
    return Experience(
        advantages=whiten(raw, mask), returns=raw + rollout.policy.values, kl=kl, rewards=rewards
    )


@dataclass(frozen=True, slots=True)
class UpdateMetrics:
    """Means over the optimizer steps of one update, by metric name; ``taken`` of ``planned`` were made."""

    metrics: dict[str, float]
    taken: int
    planned: int


def update(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    experience: Experience,
    *,
    settings: PpoSettings,
    step: int,
    processes: Processes,
) -> UpdateMetrics:
    """Goes ``epochs`` times over the rollout, an optimizer step per mini-batch.

    Ends early if the policy has moved more than ``target_kl`` allows: that mini-batch's step is not taken.
    Raises DivergedError, before the step, for a gradient that is not finite.
    """
    batches = minibatches(len(rollout.prompts), settings=settings, step=step)
    parameters = modeling.trainable_parameters(learner)
    seen: list[dict[str, float]] = []
    taken = 0
    for rows in batches:
        # 1. The gradient of a mini-batch, a few rows at a time. Every sum is divided by the tokens of all its
        #    rows, so neither the rows at a time nor the number of processes changes anything.
        optimizer.zero_grad(set_to_none=True)
        tokens = int(rollout.responses.lengths[rows].sum())
        sums: dict[str, float] = {}
        own = torch.tensor(processes.own(rows.tolist()))
        for part in chunks_by_length(
            own,
            rollout.prompts,
            rollout.responses,
            size=settings.microbatch_size,
            pass_cost=learner.pass_cost,
        ):
            with learner.updating():
                loss, metrics = _loss(learner, rollout, experience, rows=part, settings=settings)
                (loss / tokens).backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value / tokens
        processes.sum_gradients(parameters)
        means = processes.total(torch.tensor(list(sums.values()), dtype=torch.float64))
        metrics = dict(zip(sums, means.tolist(), strict=True))

        # 2. Clipped to a norm; not taken if the policy is already too far from the one that drew.
        norm = clip_gradients(
            parameters,
            settings.max_grad_norm,
            error=lambda: DivergedError("the gradient is not finite"),
        )
        seen.append({**metrics, "ppo/grad_norm": norm})
        if settings.target_kl and metrics["ppo/policy/approxkl"] > PATIENCE * settings.target_kl:
            break
        optimizer.step()
        taken += 1
    optimizer.zero_grad(set_to_none=True)
    averages = {name: sum(metrics[name] for metrics in seen) / len(seen) for name in seen[0]}
    return UpdateMetrics(metrics=averages, taken=taken, planned=len(batches))


def minibatches(rows: int, *, settings: PpoSettings, step: int) -> list[Tensor]:
    """The rows of each mini-batch of all epochs, by seed and step; the last of an epoch may be short."""
    batches: list[Tensor] = []
    for epoch in range(settings.epochs):
        order = list(range(rows))
        random.Random(f"minibatches-{settings.seed}-{step}-{epoch}").shuffle(order)
        batches += torch.split(torch.tensor(order), settings.minibatch_size)
    return batches


def _loss(
    learner: Learner, rollout: Rollout, experience: Experience, *, rows: Tensor, settings: PpoSettings
) -> tuple[Tensor, dict[str, float]]:
    """The summed loss of some rows with gradient, and sums over their tokens by metric name."""
    longest = int(rollout.responses.lengths[rows].max())
    mask = rollout.responses.mask[rows, :longest]
    reading = learner.read(rollout.prompts.select(rows), rollout.responses.ids[rows, :longest], mask)
    # The surrogate E[min(r A, clip(r, 1 - e, 1 + e) A)], r = p_new / p_old (Schulman et al. 2017, eq. 7).
    # The ratio r is 1 at the first mini-batch, and from then on says how far the policy has moved.
    log_ratio = reading.logprobs - rollout.policy.logprobs[rows, :longest]
    advantages = experience.advantages[rows, :longest]
    policy = clipped_policy_loss(log_ratio, advantages, clip=settings.clip)
    per_token = {
        "ppo/loss/policy": policy,
        "ppo/policy/approxkl": 0.5 * log_ratio.square(),
        "ppo/policy/policykl": -log_ratio,
        "ppo/policy/clipfrac": is_clipped(log_ratio, advantages, clip=settings.clip).float(),
        "ppo/policy/ratio": log_ratio.exp(),
    }
    total = policy
    if reading.values is not None and rollout.policy.values is not None and experience.returns is not None:
        values = (reading.values, rollout.policy.values[rows, :longest], experience.returns[rows, :longest])
        value = clipped_value_loss(*values, clip=settings.value_clip)
        total = policy + settings.value_coefficient * value
        per_token |= {
            "ppo/loss/value": value,
            "ppo/val/vpred": reading.values,
            "ppo/val/error": (reading.values - values[2]).square(),
            "ppo/val/clipfrac": is_value_clipped(*values, clip=settings.value_clip).float(),
        }
    per_token["ppo/loss/total"] = total
    metrics = {name: float((values.detach() * mask).sum()) for name, values in per_token.items()}
    return (total * mask).sum(), metrics


@dataclass(slots=True)
class KlControl:
    """The coefficient of the KL penalty.

    With a ``target`` (nats per response) it grows while the KL lies above and shrinks while it lies below, by
    at most a fifth per ``horizon`` responses (https://arxiv.org/abs/1909.08593, section 2.2); with a target
    of None it stays.
    """

    coefficient: float
    target: float | None
    horizon: int

    def update(self, kl: float, *, responses: int) -> None:
        """Takes notice of the mean KL of some responses."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -GREATEST_ERROR), GREATEST_ERROR)
            self.coefficient *= 1 + error * responses / self.horizon

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint has to keep."""
        return {"coefficient": self.coefficient}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Puts back what ``state_dict`` gave."""
        self.coefficient = state["coefficient"]


def rollout_metrics(rollout: Rollout, experience: Experience, *, coefficient: float) -> dict[str, float]:
    """Metrics of a rollout before the policy moves, under the names that users of trl's PPOTrainer know.

    ``objective/kl``, ``objective/entropy`` are nats per response, sums over its tokens of sampled log ratios
    and negative log-probabilities; ``ppo/policy/entropy`` is nats per token, over the whole vocabulary.
    Scores and ``reward/...`` are those of the reward, without any penalty.
    """
    responses, policy, mask = rollout.responses, rollout.policy, rollout.responses.mask
    scores, lengths = rollout.scored.total, responses.lengths.float()
    log_ratio = token_kl(policy.logprobs, rollout.reference, estimator="k1")
    metrics = {
        "objective/kl": (log_ratio * mask).sum(dim=1).mean().item(),
        "objective/kl_coef": coefficient,
        "objective/entropy": (-policy.logprobs * mask).sum(dim=1).mean().item(),
        "objective/ended": responses.ended.float().mean().item(),
        "ppo/mean_scores": float(scores.mean()),
        "ppo/std_scores": float(scores.std()),
        "ppo/mean_non_score_reward": -coefficient * masked_mean(experience.kl, mask).item(),
        "ppo/mean_rewards": experience.rewards.sum(dim=1).mean().item(),
        "ppo/policy/advantages_mean": masked_mean(experience.advantages, mask).item(),
        "tokens/queries_len_mean": rollout.prompts.mask.sum(dim=1).float().mean().item(),
        "tokens/responses_len_mean": lengths.mean().item(),
        "tokens/responses_len_std": lengths.std(correction=0).item(),
    }
    metrics |= {f"reward/{name}": float(values.mean()) for name, values in rollout.scored.terms.items()}
    if rollout.gap is not None:
        metrics["ppo/policy/sampling_gap"] = rollout.gap
    if policy.entropies is not None:
        metrics["ppo/policy/entropy"] = masked_mean(policy.entropies, mask).item()
    if policy.values is not None and experience.returns is not None:
        variance = masked_variance(experience.returns, mask)
        unexplained = masked_variance(experience.returns - policy.values, mask)
        metrics |= {
            "ppo/returns/mean": masked_mean(experience.returns, mask).item(),
            "ppo/returns/var": variance.item(),
            "ppo/val/mean": masked_mean(policy.values, mask).item(),
            "ppo/val/var": masked_variance(policy.values, mask).item(),
            "ppo/val/var_explained": (1 - unexplained / (variance + 1e-8)).item(),
        }
    return metrics


def _template(settings: PpoSettings, start: Adapter | None) -> Template:
    if settings.template is not None:
        return Template(settings.template)
    if start is None:
        raise ConfigError(
            "without an adapter to start from, template must be given: a prompt with one {text}"
        )
    return start.template


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


def _check_in_order(metrics: dict[str, float], settings: PpoSettings) -> None:
    broken = sorted(name for name, value in metrics.items() if not math.isfinite(value))
    if broken:
        raise DivergedError(f"non-finite metrics: {', '.join(broken)}")
    if abs(metrics["objective/kl"]) > settings.divergence_kl:
        raise DivergedError(
            f"objective/kl is {metrics['objective/kl']:.1f} nats per response, beyond divergence_kl = "
            f"{settings.divergence_kl:g}"
        )


def _ending(error: DivergedError | PluginError, *, step: int, last_good: Path) -> DivergedError | PluginError:
    """The error as the run's user needs it: at which step, what is left, what to do."""
    message = f"step {step}: {error}; the last good adapter is in {last_good}; "
    if isinstance(error, DivergedError):
        return DivergedError(message + "lower learning_rate, or raise kl_coefficient")
    return PluginError(
        message + "correct the reward, and the same command continues from the last checkpoint",
        reason=error.reason,
    )


def _trained(learner: Learner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in modeling.trainable_parameters(learner)]


def _restore(learner: Learner, weights: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, weight in zip(modeling.trainable_parameters(learner), weights, strict=True):
            parameter.copy_(weight)
