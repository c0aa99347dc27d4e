"""Responses drawn from the language model, what the oracle says of them, and what is read of them.

Read are the base's states and the language model's likely next tokens before each token. Alongside responses
there are known texts: drawing one costs a pass of the language model per token, reading one a single pass.
They are not the language model's own and say nothing of what it will write; they show which words matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from guardrail.errors import ConfigError
from guardrail_training.modeling.families import Family, Prompts
from guardrail_training.nado.balance import importance_weights, success_rate
from guardrail_training.nado.candidates import likely_tokens, over_candidates
from guardrail_training.regularized.corpus import CorpusMixture, CorpusPassage
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import Learner, token_logprobs
from guardrail_training.reinforcement.rollouts import PromptQuery, Responses, respond, seed_of
from guardrail_training.rewards.algebra import Answer, Reward

__all__ = [
    "Draws",
    "LabelledSamples",
    "PrefixLabels",
    "TokenPredictions",
    "candidate_logprobs",
    "collect",
    "draw",
    "keep_successes",
    "label_prefixes",
    "oracle_labels",
    "padded",
    "read",
    "read_prefix_labels",
]

CHUNK = 512
"""Tokens whose logits exist at a time: 100 MB in float32 for a vocabulary of 49k."""

PREFIX_STRIDE = 2
"""Neighbouring prefixes differ in a token, and the oracle reads each anew."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenPredictions:
    """Of responses ``(rows, time)``, before each token, zeros if there is none.

    states        of the base without adapter ``(rows, time, width)``
    ids           likely next tokens ``(rows, time, candidates)``, the one that follows among them
    log_p         the language model's log-probabilities of those and of all others
                  ``(rows, time, candidates + 1)``
    log_taken     the log-probability of the token that follows ``(rows, time)``
    """

    states: Tensor
    ids: Tensor
    log_p: Tensor
    log_taken: Tensor

    def select(self, rows: Tensor, *, time: int) -> TokenPredictions:
        """Some of the rows, cut to their first columns."""
        return TokenPredictions(
            states=self.states[rows, :time],
            ids=self.ids[rows, :time],
            log_p=self.log_p[rows, :time],
            log_taken=self.log_taken[rows, :time],
        )


@torch.no_grad()
def read(
    learner: Learner,
    prompts: Prompts,
    responses: Responses,
    *,
    candidates: int,
    rows_at_once: int,
    states: Tensor | None = None,
    is_base: bool = False,
) -> TokenPredictions:
    """Two passes over each row: the base's states, and the language model as it stands.

    One pass is enough if ``states``, the base's, are known from an earlier reading, or if the language model
    still ``is_base``.
    """
    rows, time = responses.ids.shape
    vocabulary, width = learner.model.get_base_model().get_output_embeddings().weight.shape
    candidates = min(candidates, vocabulary)
    predictions = TokenPredictions(
        states=torch.zeros(rows, time, width) if states is None else states,
        ids=torch.zeros(rows, time, candidates, dtype=torch.int64),
        log_p=torch.zeros(rows, time, candidates + 1),
        log_taken=torch.zeros(rows, time),
    )
    # Rows of one prompt stay together, which is then read once.
    by_prompt = prompts.mask.sum(dim=1).argsort(stable=True)
    for chunk in torch.split(by_prompt, rows_at_once):
        longest = int(responses.lengths[chunk].max())
        batch, ids = prompts.select(chunk), responses.ids[chunk, :longest]
        mask = responses.mask[chunk, :longest]
        row, column = chunk[:, None].expand_as(mask)[mask], torch.arange(longest).expand_as(mask)[mask]
        with learner.autocast():
            if is_base or states is None:
                with learner.as_reference():
                    of_base = learner.family.states(batch, ids)[mask]  # (tokens, width)
                predictions.states[row, column] = of_base.float().cpu()
            own = of_base if is_base else learner.family.states(batch, ids)[mask]
            for part in torch.split(torch.arange(len(own)), CHUNK):
                at = row[part], column[part]
                logits, taken = learner.family.head(own[part]), ids[mask][part]
                likely = likely_tokens(logits, count=candidates, taken=taken.to(logits.device))
                log_p = over_candidates(logits, likely).cpu()
                likely = likely.cpu()
                predictions.ids[at], predictions.log_p[at] = likely, log_p
                predictions.log_taken[at] = log_p[:, :-1][likely == taken[:, None]]
    return predictions


def candidate_logprobs(states: Tensor, ids: Tensor, *, family: Family) -> Tensor:
    """The language model's log-probabilities ``(tokens, candidates + 1)``, with gradients if enabled.

    A batch of corpus text is one chunk; more are computed again in the backward pass in place of being kept.
    """

    def chunk_logprobs(states: Tensor, ids: Tensor) -> Tensor:
        return over_candidates(family.head(states), ids)

    ids = ids.to(states.device)
    if len(states) <= CHUNK:
        return chunk_logprobs(states, ids)
    chunks = zip(torch.split(states, CHUNK), torch.split(ids, CHUNK), strict=True)
    return torch.cat([checkpoint(chunk_logprobs, *chunk, use_reentrant=False) for chunk in chunks])


def padded(responses: Sequence[Sequence[int]], *, pad_id: int) -> Responses:
    """Known responses in the shape that drawn ones have."""
    longest = max(map(len, responses))
    return Responses(
        ids=torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in responses]),
        lengths=torch.tensor([len(row) for row in responses]),
        ended=torch.zeros(len(responses), dtype=torch.bool),
    )


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSamples:
    """Responses with labels in 0..1 ``(rows,)``, importance weights ``(rows,)`` and readings.

    The weights make up for the temperature that they were drawn at. A prompt's responses lie side by side.
    ``prefix_labels`` ``(rows, time)`` are what the oracle says of the response up to each token, as if it
    ended there; nan if it was not asked.
    """

    prompts: Prompts
    responses: Responses
    labels: Tensor
    weights: Tensor
    reading: TokenPredictions
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

    def select(self, rows: Tensor) -> LabelledSamples:
        """Some of the rows."""
        time = self.responses.ids.shape[1]
        return LabelledSamples(
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
    def joined(cls, parts: Sequence[LabelledSamples]) -> LabelledSamples:
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
    def of(cls, state: Mapping[str, Tensor]) -> LabelledSamples:
        """What ``state_dict`` was taken of."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.rpartition(".")[2]: state[key] for key in state if key.startswith(f"{name}.")}

        return cls(
            prompts=Prompts(**part("prompts")),
            responses=Responses(**part("responses")),
            labels=state["labels"],
            weights=state["weights"],
            reading=TokenPredictions(**part("reading")),
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


def oracle_labels(reward: Reward, answers: Sequence[Answer], *, settings: RegularizedSettings) -> Tensor:
    """The oracle's labels of answers, float32 in 0..1; ConfigError if soft labels do not lie there."""
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
    family: Family,
    queries: Sequence[PromptQuery],
    *,
    tokenizer: Any,
    settings: RegularizedSettings,
    iteration: int,
) -> Draws:
    """``samples_per_prompt`` responses of a family to each query, side by side.

    A function of weights, queries, seed and iteration; no global random state is read.
    """
    every = [query for query in queries for _ in range(settings.samples_per_prompt)]
    prompts, responses, texts = respond(
        family,
        [query.ids for query in every],
        seeds=[seed_of("sample", settings.seed, iteration, row) for row in range(len(every))],
        tokenizer=tokenizer,
        tokens=settings.response_tokens,
        temperature=settings.temperature,
    )
    answers = [
        Answer(query=query.text, prompt=query.prompt, response=text)
        for query, text in zip(every, texts, strict=True)
    ]
    return Draws(prompts, responses, answers)


@torch.no_grad()
def collect(
    learner: Learner,
    queries: Sequence[PromptQuery],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: RegularizedSettings,
    iteration: int,
) -> LabelledSamples:
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
        is_base=is_base,
    )
    labels = oracle_labels(reward, draws.answers, settings=settings)
    prefix_labels = torch.full(responses.ids.shape, torch.nan)
    if settings.prefix_weight:
        prefix_labels = label_prefixes(reward, draws, tokenizer=tokenizer, settings=settings)
    samples = LabelledSamples(prompts, responses, labels, torch.ones(len(labels)), reading, prefix_labels)
    if settings.temperature == 1:
        return samples
    # Drawn at another temperature: importance weights make up for it.
    weights = importance_weights(
        samples.log_drawn,
        _log_drawn_hot(learner, prompts, responses, settings=settings),
        min_weight=settings.min_weight,
        max_weight=settings.max_weight,
    )
    return replace(samples, weights=weights)


def label_prefixes(reward: Reward, draws: Draws, *, tokenizer: Any, settings: RegularizedSettings) -> Tensor:
    """The oracle's labels of every other prefix of responses, the whole ones among them ``(rows, time)``."""
    lengths = draws.responses.lengths
    columns = torch.arange(draws.responses.ids.shape[1])
    asked = draws.responses.mask & ((lengths[:, None] - 1 - columns) % PREFIX_STRIDE == 0)
    answers = []
    for row, column in asked.nonzero().tolist():
        ids = draws.responses.tokens(row)[: column + 1]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        answers.append(replace(draws.answers[row], response=text))
    labels = oracle_labels(reward, answers, settings=settings)
    return torch.full(asked.shape, torch.nan).masked_scatter(asked, labels)


def _log_drawn_hot(
    learner: Learner,
    prompts: Prompts,
    responses: Responses,
    *,
    settings: RegularizedSettings,
) -> Tensor:
    """The log-probability of each response at the temperature that it was drawn at ``(rows,)``."""
    sums = torch.zeros(len(prompts))
    for rows in torch.split(torch.arange(len(prompts)), settings.microbatch_size):
        mask = responses.mask[rows]
        with learner.autocast():
            states = learner.family.states(prompts.select(rows), responses.ids[rows])[mask]
            tokens = responses.ids[rows][mask]
            logprobs = token_logprobs(states, tokens, learner.family.head, temperature=settings.temperature)
        sums[rows] = torch.zeros(mask.shape).masked_scatter(mask, logprobs.float().cpu()).sum(dim=1)
    return sums


@dataclass(frozen=True, slots=True, eq=False)
class PrefixLabels:
    """The base's states before each token ``(rows, time, width)``, the tokens, and labels after each of them.

    ``ids`` and ``labels`` are ``(rows, time)``; a label is nan if the oracle was not asked.
    """

    states: Tensor
    ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)


@torch.no_grad()
def read_prefix_labels(
    learner: Learner,
    passages: Sequence[CorpusPassage],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: RegularizedSettings,
) -> PrefixLabels:
    """The base's states along texts, and what the oracle says of their prefixes, prompts left out."""
    prompts = learner.family.pad([passage.prompt for passage in passages])
    responses = padded([passage.response for passage in passages], pad_id=tokenizer.pad_token_id)
    answers = [Answer(query="", prompt="", response=passage.text) for passage in passages]
    rows, time = responses.ids.shape
    width = learner.model.get_base_model().get_output_embeddings().weight.shape[1]
    states = torch.zeros(rows, time, width)
    for chunk in torch.split(responses.lengths.argsort(stable=True), settings.microbatch_size):
        longest = int(responses.lengths[chunk].max())
        with learner.autocast(), learner.as_reference():
            states[chunk, :longest] = (
                learner.family.states(prompts.select(chunk), responses.ids[chunk, :longest]).float().cpu()
            )
    labels = label_prefixes(
        reward, Draws(prompts, responses, answers), tokenizer=tokenizer, settings=settings
    )
    return PrefixLabels(states, responses.ids, labels)


def keep_successes(mixture: CorpusMixture, reward: Reward, *, settings: RegularizedSettings) -> CorpusMixture:
    """The mixture with only those guided texts that the oracle calls a success."""
    answers = [Answer(query="", prompt="", response=passage.text) for passage in mixture.guided]
    labels = oracle_labels(reward, answers, settings=settings)
    successes = tuple(
        passage
        for passage, label in zip(mixture.guided, labels.tolist(), strict=True)
        if label >= settings.success_from
    )
    if not successes:
        raise ConfigError("filtering leaves no guided text: lower success_from or choose another reward")
    return replace(mixture, guided=successes)
