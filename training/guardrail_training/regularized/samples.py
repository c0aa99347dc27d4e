"""Responses drawn from the language model, what the oracle says of them, and what was read of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from guardrail.errors import ConfigError
from guardrail_training.modeling import autocast
from guardrail_training.modeling.families import Family, Prompts
from guardrail_training.nado.balance import importance_weights, success_rate
from guardrail_training.regularized.reading import Reading, read
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.logprobs import token_logprobs
from guardrail_training.reinforcement.queries import Query
from guardrail_training.reinforcement.sampling import Responses, noise_for, sample
from guardrail_training.rewards.algebra import Answer, Reward

__all__ = ["Draws", "Samples", "collect", "draw", "opinions", "opinions_of_prefixes"]


PREFIX_STRIDE = 2
"""Neighbouring prefixes differ in a token, and the oracle reads each anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Responses with labels in 0..1 ``(rows,)``, importance weights ``(rows,)`` and readings.

    The weights make up for the temperature that they were drawn at. A prompt's responses lie side by side.
    ``prefix_labels`` ``(rows, time)`` are what the oracle says of the response up to each token, as if it
    ended there; nan where it was not asked.
    """

    prompts: Prompts
    responses: Responses
    labels: Tensor
    weights: Tensor
    reading: Reading
    prefix_labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def rate(self) -> float:
        """The share of successes under the language model."""
        return success_rate(self.labels, self.weights)

    @property
    def log_drawn(self) -> Tensor:
        """The log-probability of each response under the language model that drew it, at temperature 1."""
        return (self.reading.log_taken * self.responses.mask).sum(dim=1)

    def select(self, rows: Tensor) -> Samples:
        """Some of the rows."""
        time = self.responses.ids.shape[1]
        return Samples(
            prompts=self.prompts.select(rows),
            responses=Responses(
                ids=self.responses.ids[rows],
                lengths=self.responses.lengths[rows],
                ended=self.responses.ended[rows],
            ),
            labels=self.labels[rows],
            weights=self.weights[rows],
            reading=self.reading.select(rows, time=time),
            prefix_labels=self.prefix_labels[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        """The rows of all parts one below the other."""
        if len(parts) == 1:
            return parts[0]
        states = [part.state_dict() for part in parts]
        return cls.of({name: _stacked(name, [state[name] for state in states]) for name in states[0]})

    def state_dict(self) -> dict[str, Tensor]:
        """All of it as tensors by name."""
        return {
            "prompts.ids": self.prompts.ids,
            "prompts.mask": self.prompts.mask,
            "responses.ids": self.responses.ids,
            "responses.lengths": self.responses.lengths,
            "responses.ended": self.responses.ended,
            "labels": self.labels,
            "weights": self.weights,
            "prefix_labels": self.prefix_labels,
            "reading.states": self.reading.states,
            "reading.ids": self.reading.ids,
            "reading.log_p": self.reading.log_p,
            "reading.log_taken": self.reading.log_taken,
        }

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Samples:
        """What ``state_dict`` was taken of."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.rpartition(".")[2]: state[key] for key in state if key.startswith(f"{name}.")}

        return cls(
            prompts=Prompts(**part("prompts")),
            responses=Responses(**part("responses")),
            labels=state["labels"],
            weights=state["weights"],
            reading=Reading(**part("reading")),
            prefix_labels=state["prefix_labels"],
        )


def _stacked(name: str, parts: Sequence[Tensor]) -> Tensor:
    """Tensors of samples one below the other, padded to the columns of the widest."""
    if parts[0].dim() == 1:
        return torch.cat(list(parts))
    longest = max(part.shape[1] for part in parts)
    value = torch.nan if name == "prefix_labels" else 0
    padded = []
    for part in parts:
        missing = longest - part.shape[1]
        sides = (missing, 0) if name.startswith("prompts.") else (0, missing)
        padded.append(functional.pad(part, (*(0, 0) * (part.dim() - 2), *sides), value=value))
    return torch.cat(padded)


def opinions(reward: Reward, answers: Sequence[Answer], *, settings: RegularizedSettings) -> Tensor:
    """The oracle's labels of answers, float32 in 0..1; ConfigError where soft labels do not lie there."""
    total = torch.from_numpy(reward(answers).total)
    if settings.labels == "hard":
        return (total >= settings.success_from).float()
    if bool(((total < 0) | (total > 1)).any()):
        raise ConfigError(
            f"soft labels are the reward itself, which must lie in 0..1; {reward.formula} gave "
            f"{float(total.min()):.3g} to {float(total.max()):.3g}; set labels to hard, with success_from"
        )
    return total


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Responses to prompts, and each as the oracle is asked about it."""

    prompts: Prompts
    responses: Responses
    answers: Sequence[Answer] = field(repr=False)


@torch.no_grad()
def draw(
    family: Family, queries: Sequence[Query], *, tokenizer: Any, settings: RegularizedSettings, iteration: int
) -> Draws:
    """``samples_per_prompt`` responses of a family to each query, side by side.

    A function of weights, queries, seed and iteration; no global random state is read.
    """
    every = [query for query in queries for _ in range(settings.samples_per_prompt)]
    seeds = [_seed(settings.seed, iteration, row) for row in range(len(every))]
    prompts = family.pad([query.ids for query in every])
    responses = sample(
        family,
        prompts,
        noise=noise_for(seeds, tokens=settings.response_tokens),
        limits=torch.full((len(every),), settings.response_tokens),
        temperature=settings.temperature,
        stop_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
    )
    texts = [tokenizer.decode(responses.tokens(row), skip_special_tokens=True) for row in range(len(every))]
    answers = [
        Answer(query=query.text, prompt=query.prompt, response=text.strip())
        for query, text in zip(every, texts, strict=True)
    ]
    return Draws(prompts, responses, answers)


@torch.no_grad()
def collect(
    learner: Learner,
    queries: Sequence[Query],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: RegularizedSettings,
    iteration: int,
    dtype: torch.dtype,
) -> Samples:
    """``samples_per_prompt`` responses of the language model to each query, labelled and read.

    In iteration 0 it has learned nothing yet: the base answers, without the adapter, which is the same.
    """
    is_base = iteration == 0
    with learner.sampling() as family, learner.as_reference() if is_base else nullcontext():
        draws = draw(family, queries, tokenizer=tokenizer, settings=settings, iteration=iteration)
    prompts, responses = draws.prompts, draws.responses
    reading = read(
        learner,
        prompts,
        responses,
        candidates=settings.candidates,
        rows_at_once=settings.microbatch_size,
        dtype=dtype,
        is_base=is_base,
    )
    labels = opinions(reward, draws.answers, settings=settings)
    prefix_labels = torch.full(responses.ids.shape, torch.nan)
    if settings.prefix_weight:
        prefix_labels = opinions_of_prefixes(reward, draws, tokenizer=tokenizer, settings=settings)
    found = Samples(prompts, responses, labels, torch.ones(len(labels)), reading, prefix_labels)
    if settings.temperature == 1:
        return found
    weights = importance_weights(
        found.log_drawn,
        _log_drawn_hot(learner, prompts, responses, settings=settings, dtype=dtype),
        least=settings.least_weight,
        most=settings.most_weight,
    )
    return replace(found, weights=weights)


def opinions_of_prefixes(
    reward: Reward, draws: Draws, *, tokenizer: Any, settings: RegularizedSettings
) -> Tensor:
    """The oracle's labels of every other prefix of responses, the whole ones among them ``(rows, time)``."""
    lengths = draws.responses.lengths
    columns = torch.arange(draws.responses.ids.shape[1])
    asked = draws.responses.mask & ((lengths[:, None] - 1 - columns) % PREFIX_STRIDE == 0)
    answers = []
    for row, column in asked.nonzero().tolist():
        ids = draws.responses.tokens(row)[: column + 1]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        answers.append(replace(draws.answers[row], response=text))
    labels = opinions(reward, answers, settings=settings)
    return torch.full(asked.shape, torch.nan).masked_scatter(asked, labels)


def _log_drawn_hot(
    learner: Learner,
    prompts: Prompts,
    responses: Responses,
    *,
    settings: RegularizedSettings,
    dtype: torch.dtype,
) -> Tensor:
    """The log-probability of each response at the temperature that it was drawn at ``(rows,)``."""
    sums = torch.zeros(len(prompts))
    for rows in torch.split(torch.arange(len(prompts)), settings.microbatch_size):
        mask = responses.mask[rows]
        with autocast(dtype):
            states = learner.family.states(prompts.select(rows), responses.ids[rows])[mask]
            tokens = responses.ids[rows][mask]
            found = token_logprobs(states, tokens, learner.family.head, temperature=settings.temperature)
        sums[rows] = torch.zeros(mask.shape).masked_scatter(mask, found.float()).sum(dim=1)
    return sums


def _seed(seed: int, iteration: int, row: int) -> int:
    digest = hashlib.sha256(f"sample-{seed}-{iteration}-{row}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
