"""Moves the policy towards what a rollout showed."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail.errors import FailureError
from guardrail_training.modeling import trainable_parameters
from guardrail_training.processes import Processes
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.objectives import clipped_policy_loss, clipped_value_loss, is_clipped
from guardrail_training.reinforcement.rollouts import Experience, Rollout, chunks_by_length
from guardrail_training.reinforcement.settings import PpoSettings

__all__ = ["DivergedError", "UpdateFigures", "minibatches", "update"]

PATIENCE = 1.5  # trl's factor on target_kl


class DivergedError(FailureError):
    """A run cannot go on: its loss is no number any more, or the policy has left its reference behind."""


@dataclass(frozen=True, slots=True)
class UpdateFigures:
    """Means over the optimizer steps of one update, by metric name; ``taken`` of ``planned`` were made."""

    figures: dict[str, float]
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
) -> UpdateFigures:
    """Goes ``epochs`` times over the rollout, an optimizer step per mini-batch.

    Ends early where the policy has moved more than ``target_kl`` allows: that mini-batch's step is not taken.
    Raises DivergedError, before the step, for a gradient that is not finite.
    """
    batches = minibatches(len(rollout.prompts), settings=settings, step=step)
    parameters = trainable_parameters(learner)
    seen: list[dict[str, float]] = []
    taken = 0
    for rows in batches:
        optimizer.zero_grad(set_to_none=True)
        figures = _gradients(learner, rollout, experience, rows=rows, settings=settings, processes=processes)
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm or float("inf"))
        if not bool(torch.isfinite(norm)):
            raise DivergedError("the gradient is not finite")
        seen.append({**figures, "ppo/grad_norm": norm.item()})
        if settings.target_kl and figures["ppo/policy/approxkl"] > PATIENCE * settings.target_kl:
            break
        optimizer.step()
        taken += 1
    optimizer.zero_grad(set_to_none=True)
    means = {name: sum(figures[name] for figures in seen) / len(seen) for name in seen[0]}
    return UpdateFigures(figures=means, taken=taken, planned=len(batches))


def minibatches(rows: int, *, settings: PpoSettings, step: int) -> list[Tensor]:
    """The rows of each mini-batch of all epochs, by seed and step; the last of an epoch may be short."""
    batches: list[Tensor] = []
    for epoch in range(settings.epochs):
        order = list(range(rows))
        random.Random(f"minibatches-{settings.seed}-{step}-{epoch}").shuffle(order)
        batches += torch.split(torch.tensor(order), settings.minibatch_size)
    return batches


def _gradients(
    learner: Learner,
    rollout: Rollout,
    experience: Experience,
    *,
    rows: Tensor,
    settings: PpoSettings,
    processes: Processes,
) -> dict[str, float]:
    """Computes a mini-batch's gradient, a few rows at a time, and returns its means over tokens.

    Every sum is divided by the tokens of the whole mini-batch, so neither the rows at a time nor the number
    of processes changes anything.
    """
    tokens = int(rollout.responses.lengths[rows].sum())
    sums: dict[str, float] = {}
    own = torch.tensor(processes.own(rows.tolist()))
    for part in chunks_by_length(own, rollout.prompts, rollout.responses, size=settings.microbatch_size):
        with learner.updating():
            loss, figures = _loss(learner, rollout, experience, rows=part, settings=settings)
            (loss / tokens).backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value / tokens
    processes.sum_gradients(trainable_parameters(learner))
    means = processes.total(torch.tensor(list(sums.values()), dtype=torch.float64))
    return dict(zip(sums, means.tolist(), strict=True))


def _loss(
    learner: Learner, rollout: Rollout, experience: Experience, *, rows: Tensor, settings: PpoSettings
) -> tuple[Tensor, dict[str, float]]:
    """The summed loss of some rows with gradient, and sums over their tokens by metric name."""
    longest = int(rollout.responses.lengths[rows].max())
    mask = rollout.responses.mask[rows, :longest]
    reading = learner.read(rollout.prompts.select(rows), rollout.responses.ids[rows, :longest], mask)
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
        old, returns = rollout.policy.values[rows, :longest], experience.returns[rows, :longest]
        value = clipped_value_loss(reading.values, old, returns, clip=settings.value_clip)
        total = policy + settings.value_coefficient * value
        per_token |= {
            "ppo/loss/value": value,
            "ppo/val/vpred": reading.values,
            "ppo/val/error": (reading.values - returns).square(),
            "ppo/val/clipfrac": ((reading.values - old).abs() > settings.value_clip).float(),
        }
    per_token["ppo/loss/total"] = total
    figures = {name: float((values.detach() * mask).sum()) for name, values in per_token.items()}
    return (total * mask).sum(), figures
