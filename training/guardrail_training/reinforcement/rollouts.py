"""Draws responses, scores them, and turns the scores into what the policy learns from."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from guardrail.errors import PluginError
from guardrail_training.modeling.families import Prompts
from guardrail_training.processes import Processes
from guardrail_training.reinforcement.advantages import (
    generalised_advantages,
    group_advantages,
    token_kl,
    token_rewards,
    whiten,
)
from guardrail_training.reinforcement.learner import Learner, Reading
from guardrail_training.reinforcement.queries import Query
from guardrail_training.reinforcement.sampling import Responses, noise_for, sample
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Answer, Reward, Scored

__all__ = ["Experience", "Rollout", "assess", "chunks_by_length", "collect", "read_responses"]


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """Responses to the prompts of one step with all that is known of them before the policy moves.

    ``policy`` and ``reference`` are taken once, in the forward passes that training makes too: sampling's own
    numbers differ by rounding.
    """

    prompts: Prompts
    responses: Responses
    policy: Reading
    reference: Tensor  # (rows, time)
    scored: Scored


@dataclass(frozen=True, slots=True, eq=False)
class Experience:
    """What the updates of a step read, ``(rows, time)``: returns is None without a value function."""

    advantages: Tensor
    returns: Tensor | None
    kl: Tensor
    rewards: Tensor


def collect(
    learner: Learner,
    queries: Sequence[Query],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: PpoSettings,
    step: int,
    processes: Processes,
) -> Rollout:
    """One rollout: ``samples_per_prompt`` responses to each query, side by side.

    Each process draws and scores its part of them; every process returns all. A function of weights, queries,
    seed and step; no global random state is read. PluginError, in every process, where a score is no number.
    """
    every = [query for query in queries for _ in range(settings.samples_per_prompt)]
    rows = processes.own(every)
    with learner.sampling() as family:
        prompts = family.pad([query.ids for query in rows])
        numbers = processes.own(range(len(every)))
        seeds = [_seed(settings.seed, step, row) for row in numbers]
        responses = sample(
            family,
            prompts,
            noise=noise_for(seeds, tokens=settings.response_tokens),
            limits=torch.tensor([_limit(settings, seed) for seed in seeds]),
            temperature=settings.temperature,
            stop_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
            is_pass_due=processes.is_pass_due,
        )
    texts = [
        tokenizer.decode(responses.tokens(row), skip_special_tokens=True).strip() for row in range(len(rows))
    ]
    answers = [
        Answer(query=query.text, prompt=query.prompt, response=text)
        for query, text in zip(rows, texts, strict=True)
    ]
    scored = _scored(answers, reward=reward, processes=processes)
    policy, reference = read_responses(learner, prompts, responses, rows_at_once=settings.microbatch_size)
    return _joined(
        processes.gather(
            Rollout(prompts=prompts, responses=responses, policy=policy, reference=reference, scored=scored)
        ),
        prompts=learner.family.pad([query.ids for query in every]),
    )


def _scored(answers: Sequence[Answer], *, reward: Reward, processes: Processes) -> Scored:
    found: Scored | PluginError
    try:
        found = reward(answers)
    except PluginError as error:
        found = error
    # The processes go on together or end together: one that ended alone would leave the others waiting.
    has_failed = processes.any(isinstance(found, PluginError))
    if isinstance(found, PluginError):
        raise found
    if has_failed:
        raise PluginError("the reward failed in another process, which says how", reason="reward_invalid")
    return found


def assess(rollout: Rollout, *, settings: PpoSettings, coefficient: float) -> Experience:
    """Advantages and returns of a rollout under a KL coefficient.

    RLOO and GRPO see a response as one action: its reward is its score less the KL penalty of all its tokens,
    and every token gets its advantage. (The GRPO paper puts the KL into the loss; here it stands in the
    reward for all three.)
    """
    mask = rollout.responses.mask
    scores = torch.from_numpy(rollout.scored.total)
    scores = scores - settings.missing_eos_penalty * ~rollout.responses.ended
    kl = token_kl(rollout.policy.logprobs, rollout.reference, estimator=settings.kl_estimator) * mask
    rewards = token_rewards(kl, scores, mask, coefficient=coefficient)
    if settings.whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False)
    if rollout.policy.values is None:
        whole = group_advantages(
            rewards.sum(dim=1),
            group=settings.samples_per_prompt,
            standardise=settings.estimator == "grpo",
        )
        return Experience(advantages=whole[:, None] * mask, returns=None, kl=kl, rewards=rewards)
    raw = generalised_advantages(
        rewards, rollout.policy.values, mask, gamma=settings.gamma, gae_lambda=settings.gae_lambda
    )
    return Experience(
        advantages=whiten(raw, mask), returns=raw + rollout.policy.values, kl=kl, rewards=rewards
    )


def _joined(parts: Sequence[Rollout], *, prompts: Prompts) -> Rollout:
    """The parts of all processes one below the other."""
    if len(parts) == 1:
        return parts[0]
    policies = [part.policy for part in parts]
    values = [policy.values for policy in policies if policy.values is not None]
    entropies = [policy.entropies for policy in policies if policy.entropies is not None]
    return Rollout(
        prompts=prompts,
        responses=Responses(
            ids=_stacked([part.responses.ids for part in parts]),
            lengths=torch.cat([part.responses.lengths for part in parts]),
            ended=torch.cat([part.responses.ended for part in parts]),
        ),
        policy=Reading(
            logprobs=_stacked([policy.logprobs for policy in policies]),
            values=_stacked(values) if values else None,
            entropies=_stacked(entropies) if entropies else None,
        ),
        reference=_stacked([part.reference for part in parts]),
        scored=Scored.joined([part.scored for part in parts]),
    )


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Tensors ``(rows, time)`` one below the other, zeros where one is shorter than the longest."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, longest - part.shape[1])) for part in parts])


@torch.no_grad()
def read_responses(
    learner: Learner, prompts: Prompts, responses: Responses, *, rows_at_once: int
) -> tuple[Reading, Tensor]:
    """What policy and reference say of all responses, a few rows at a time."""
    shape, mask = responses.ids.shape, responses.mask
    logprobs, reference, entropies, values = (torch.zeros(shape) for _ in range(4))
    for rows in chunks_by_length(torch.arange(len(prompts)), prompts, responses, size=rows_at_once):
        longest = int(responses.lengths[rows].max())
        batch = prompts.select(rows), responses.ids[rows, :longest], mask[rows, :longest]
        own = learner.read(*batch, with_entropies=True)
        logprobs[rows, :longest] = own.logprobs
        reference[rows, :longest] = learner.reference_logprobs(*batch)
        if own.entropies is not None:
            entropies[rows, :longest] = own.entropies
        if own.values is not None:
            values[rows, :longest] = own.values
    has_values = learner.value_head is not None
    policy = Reading(logprobs=logprobs, values=values if has_values else None, entropies=entropies)
    return policy, reference


def chunks_by_length(
    rows: Tensor, prompts: Prompts, responses: Responses, *, size: int
) -> tuple[Tensor, ...]:
    """The rows in chunks of at most ``size``, similar lengths together: the less padding to compute."""
    lengths = prompts.mask.sum(dim=1) + responses.lengths
    return torch.split(rows[lengths[rows].argsort(stable=True)], size)


def _seed(seed: int, step: int, row: int) -> int:
    digest = hashlib.sha256(f"response-{seed}-{step}-{row}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _limit(settings: PpoSettings, seed: int) -> int:
    if settings.shortest_limit is None:
        return settings.response_tokens
    return random.Random(seed).randint(settings.shortest_limit, settings.response_tokens)
