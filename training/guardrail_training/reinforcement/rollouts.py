"""Queries, the responses drawn to them, and what policy, reference and reward say of those.

Sampling is plain: no top-k, no top-p, no repetition penalty, and no minimum length unless it is asked for. A
policy that is scored on other probabilities than it is sampled from has a wrong ratio and a wrong KL. The
rewriter's decoding for serving is another thing: it truncates, returns several candidates without their
probabilities and drops those that do not end, so nothing of it is used here.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from guardrail.errors import PluginError
from guardrail.manifest import Template
from guardrail_training.data import read_texts
from guardrail_training.modeling.families import EncoderDecoder, Family, Prompts
from guardrail_training.modeling.passes import parts_by_cost
from guardrail_training.processes import Processes
from guardrail_training.records import TrainingRowError
from guardrail_training.reinforcement.policy import Learner, PolicyReading, scaled_logits, token_metrics
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Answer, Reward, Scored

__all__ = [
    "PromptQuery",
    "Responses",
    "Rollout",
    "SamplingRecorder",
    "chunks_by_length",
    "collect",
    "drawn",
    "first_ratio_gap",
    "load_queries",
    "noise_for",
    "old_readings",
    "read_responses",
    "respond",
    "sample",
    "seed_of",
    "text_of",
]

T = TypeVar("T")
MAX_GAP = 1e-3
"""How far a first ratio may be from 1 if sampling's own log-probabilities are taken."""
ROWS = 64
"""Rows that are drawn at a time: enough for matrix products near their peak; more only cost memory."""


@dataclass(frozen=True, slots=True)
class PromptQuery:
    """A text, the prompt made of it, the prompt's token ids, and its row from 1, 0 without a file."""

    text: str = field(repr=False)
    prompt: str = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)
    row: int = 0


def load_queries(
    path: Path,
    *,
    field: str,
    template: Template,
    tokenizer: Any,
    min_characters: int,
    max_characters: int,
    max_tokens: int,
) -> tuple[PromptQuery, ...]:
    """Every text of a JSON Lines file whose length is within the bounds.

    Raises TrainingRowError for an empty text, for a prompt of more than ``max_tokens`` ids, which is never
    cut silently, and if no text is left.
    """
    queries = []
    for text in read_texts(path, field=field):
        if not min_characters <= len(text.content) <= max_characters:
            continue
        ids = tuple(template.encode(tokenizer, text.content))
        if len(ids) > max_tokens:
            raise TrainingRowError(
                f"{path} row {text.number}: its prompt has {len(ids)} tokens, more than max_prompt_tokens = "
                f"{max_tokens}; raise it, or lower max_characters to leave such rows out"
            )
        prompt = template.literal.replace("{text}", text.content)
        queries.append(PromptQuery(text=text.content, prompt=prompt, ids=ids, row=text.number))
    if not queries:
        raise TrainingRowError(
            f"{path}: no text has between {min_characters} and {max_characters} characters"
        )
    return tuple(queries)


def drawn(queries: Sequence[T], *, step: int, count: int, seed: int) -> list[T]:
    """The queries, or other texts, of a step, from 1: one random order after the other, each of all."""
    items = []
    for position in range((step - 1) * count, step * count):
        order = _order(len(queries), seed=seed, turn=position // len(queries))
        items.append(queries[order[position % len(queries)]])
    return items


def _order(count: int, *, seed: int, turn: int) -> list[int]:
    order = list(range(count))
    random.Random(f"queries-{seed}-{turn}").shuffle(order)
    return order


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """Drawn tokens: ``ids`` ``(rows, time)`` int64, padded on the right, and how many of them are real.

    ``ended`` ``(rows,)`` is true if the last real token is the stop token, false if the limit came
    first.
    """

    ids: Tensor
    lengths: Tensor
    ended: Tensor

    @property
    def mask(self) -> Tensor:
        """True at real tokens ``(rows, time)``: from the lengths, since a stop token may be the padding."""
        return torch.arange(self.ids.shape[1]) < self.lengths[:, None]

    def tokens(self, row: int) -> list[int]:
        """The tokens of one response without its stop token."""
        length = int(self.lengths[row]) - int(self.ended[row])
        return [int(token) for token in self.ids[row, :length]]


def noise_for(seeds: Sequence[int], *, tokens: int) -> Tensor:
    """Uniform numbers ``(rows, tokens)`` float64 in [0, 1), each row from its own seed alone."""
    rows = [
        torch.rand(tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    return torch.stack(rows)


class SamplingRecorder:
    """What a policy says of its tokens while it draws them, which is what another pass would say of them.

    But for rounding: products of few rows add up in another order.
    """

    def __init__(self, learner: Learner, *, rows: int, tokens: int) -> None:
        self._head = learner.value_head
        self._logprobs, self._entropies, self._values = (torch.zeros(rows, tokens) for _ in range(3))

    def see(self, rows: Tensor, step: int, states: Tensor, logits: Tensor, tokens: Tensor) -> None:
        """Notes the tokens drawn in some rows from their logits, which followed from their states."""
        logprobs, entropies = token_metrics(logits, tokens)
        self._logprobs[rows, step] = logprobs.cpu()
        self._entropies[rows, step] = entropies.cpu()
        if self._head is not None:
            with torch.autocast(states.device.type, enabled=False):  # values are float32 everywhere
                self._values[rows, step] = self._head(states).cpu()

    def reading(self, responses: Responses) -> PolicyReading:
        """All that was noted, in the shape of the responses."""
        time = responses.ids.shape[1]
        return PolicyReading(
            logprobs=self._logprobs[:, :time],
            values=None if self._head is None else self._values[:, :time],
            entropies=self._entropies[:, :time],
        )


@torch.no_grad()
def sample(
    family: Family,
    prompts: Prompts,
    *,
    noise: Tensor,
    limits: Tensor,
    temperature: float,
    stop_id: int,
    pad_id: int,
    min_tokens: int = 0,
    is_pass_due: Callable[[bool], bool] = bool,
    recorder: SamplingRecorder | None = None,
) -> Responses:
    """One response per prompt: a pure function of the model, the prompts and ``noise`` ``(rows, steps)``.

    The stop token cannot be among the first ``min_tokens``.
    A row ends with the stop token or with its limit of tokens (``limits``, ``(rows,)``, at most ``steps``)
    and leaves the batch, which gets cheaper as rows end. A row's noise decides its tokens whatever else is in
    the batch. ``is_pass_due`` is told whether another pass is wanted and says whether to make one: of a model
    that is sharded over processes, all of them make as many. ``recorder`` sees what a token was drawn from.
    """
    # Prompts of like lengths together: the less padding to read and to remember.
    by_length = prompts.mask.sum(dim=1).argsort(stable=True)
    ids = torch.full((len(prompts), int(limits.max())), pad_id)
    lengths = torch.zeros(len(prompts), dtype=torch.int64)
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    for rows in torch.split(by_length, ROWS):
        under_way = family.begin(prompts.select(rows))
        alive = rows
        for step in range(ids.shape[1]):
            logits = scaled_logits(under_way.states, family.head, temperature=temperature)
            uniform = noise[alive, step].to(logits.device)
            tokens = _draw(_without(logits, stop_id) if step < min_tokens else logits, uniform)
            if recorder is not None:
                recorder.see(alive, step, under_way.states, logits, tokens)
            tokens = tokens.cpu()
            ids[alive, step] = tokens
            lengths[alive] += 1
            stopped = tokens == stop_id
            ended[alive[stopped]] = True
            going = ~stopped & (lengths[alive] < limits[alive])
            if not bool(going.any()):
                break
            if not bool(going.all()):
                # Rows that ended leave the batch: later passes compute the others alone.
                unfinished = going.nonzero()[:, 0]
                under_way.keep(unfinished)
                alive, tokens = alive[unfinished], tokens[unfinished]
            is_pass_due(True)
            under_way.advance(tokens)
        while is_pass_due(False):
            under_way.advance(tokens)
    return Responses(ids=ids[:, : int(lengths.max())], lengths=lengths, ended=ended)


def _without(logits: Tensor, token: int) -> Tensor:
    return logits.index_fill(1, torch.tensor([token], device=logits.device), -torch.inf)


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative probability passes the uniform number, ``(rows,)``."""
    # In float64: the sums over a vocabulary of 49k would lose the tail in float32.
    sums = logits.double().softmax(dim=1).cumsum(dim=1)
    # Rounding may leave the whole slightly off 1, so the number is taken as a share of it.
    passed = torch.searchsorted(sums, (uniform * sums[:, -1])[:, None], right=True)[:, 0]
    return passed.clamp(max=logits.shape[1] - 1)


def seed_of(kind: str, *numbers: int) -> int:
    """A seed of its own for one response; the kind keeps the responses of different stages apart."""
    digest = hashlib.sha256("-".join(map(str, (kind, *numbers))).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def respond(
    family: Family,
    queries: Sequence[Sequence[int]],
    *,
    seeds: Sequence[int],
    tokenizer: Any,
    tokens: int,
    temperature: float,
    limits: Sequence[int] | None = None,
    min_tokens: int = 0,
    keeps_special: bool = False,
    is_pass_due: Callable[[bool], bool] = bool,
    recorder: SamplingRecorder | None = None,
) -> tuple[Prompts, Responses, list[str]]:
    """A response of at most ``tokens``, or its own of ``limits``, to the ids of each prompt, and its text."""
    prompts = family.pad(queries)
    responses = sample(
        family,
        prompts,
        noise=noise_for(seeds, tokens=tokens),
        limits=torch.tensor(limits or [tokens] * len(seeds)),
        temperature=temperature,
        stop_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        min_tokens=min_tokens,
        is_pass_due=is_pass_due,
        recorder=recorder,
    )
    texts = [
        text_of(family, responses, row, tokenizer=tokenizer, keeps_special=keeps_special)
        for row in range(len(seeds))
    ]
    return prompts, responses, texts


def text_of(family: Family, responses: Responses, row: int, *, tokenizer: Any, keeps_special: bool) -> str:
    """A response's text; with its special tokens as a tokenizer writes all that a model generated: an
    encoder-decoder's start token and the end, if it came."""
    if not keeps_special:
        text: str = tokenizer.decode(responses.tokens(row), skip_special_tokens=True)
        return text.strip()
    begun = [family.start] if isinstance(family, EncoderDecoder) else []
    whole: str = tokenizer.decode([*begun, *responses.ids[row, : int(responses.lengths[row])].tolist()])
    return whole


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """Responses to the prompts of one step with all that is known of them before the policy moves.

    ``policy`` and ``reference`` are taken once: in the forward passes that training makes too, or, with
    ``old_logprobs = "sampled"``, the policy's while it draws. Those differ by rounding, by ``gap`` at most in
    the ratio of any token of the response that was read both ways, None if none was.
    """

    prompts: Prompts
    responses: Responses
    policy: PolicyReading
    reference: Tensor  # (rows, time)
    scored: Scored
    gap: float | None = None


def collect(
    learner: Learner,
    queries: Sequence[PromptQuery],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: PpoSettings,
    step: int,
    processes: Processes,
) -> Rollout:
    """One rollout: ``samples_per_prompt`` responses to each query, side by side.

    Each process draws and scores its part of them; every process returns all. A function of weights, queries,
    seed and step; no global random state is read. PluginError, in every process, if a score is not finite.
    """
    every = [query for query in queries for _ in range(settings.samples_per_prompt)]
    rows = processes.own(every)
    numbers = processes.own(range(len(every)))
    seeds = [seed_of("response", settings.seed, step, row) for row in numbers]
    recorder = (
        SamplingRecorder(learner, rows=len(rows), tokens=settings.response_tokens)
        if settings.old_logprobs == "sampled"
        else None
    )
    with learner.sampling() as family:
        prompts, responses, texts = respond(
            family,
            [query.ids for query in rows],
            seeds=seeds,
            tokenizer=tokenizer,
            tokens=settings.response_tokens,
            temperature=settings.temperature,
            limits=[_limit(settings, seed) for seed in seeds],
            min_tokens=settings.min_response_tokens,
            keeps_special=settings.keeps_special_tokens,
            is_pass_due=processes.is_pass_due,
            recorder=recorder,
        )
    answers = [
        Answer(query=query.text, prompt=query.prompt, response=text)
        for query, text in zip(rows, texts, strict=True)
    ]
    scored = _scored(answers, reward=reward, processes=processes)
    policy, reference, gap = old_readings(
        learner,
        prompts,
        responses,
        recorder=recorder,
        rows_at_once=settings.microbatch_size,
        step=step,
        processes=processes,
    )
    rollout = Rollout(
        prompts=prompts, responses=responses, policy=policy, reference=reference, scored=scored, gap=gap
    )
    return _joined(processes.gather(rollout), prompts=learner.family.pad([query.ids for query in every]))


def _scored(answers: Sequence[Answer], *, reward: Reward, processes: Processes) -> Scored:
    result: Scored | PluginError
    try:
        result = reward(answers)
    except PluginError as error:
        result = error
    # The processes continue together or end together: one that ended alone would leave the others waiting.
    has_failed = processes.any(isinstance(result, PluginError))
    if isinstance(result, PluginError):
        raise result
    if has_failed:
        raise PluginError("the reward failed in another process, which says how", reason="reward_invalid")
    return result


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
        policy=PolicyReading(
            logprobs=_stacked([policy.logprobs for policy in policies]),
            values=_stacked(values) if values else None,
            entropies=_stacked(entropies) if entropies else None,
        ),
        reference=_stacked([part.reference for part in parts]),
        scored=Scored.joined([part.scored for part in parts]),
        gap=max((part.gap for part in parts if part.gap is not None), default=None),
    )


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Tensors ``(rows, time)`` one below the other, zeros where one is shorter than the longest."""
    longest = max(part.shape[1] for part in parts)
    return torch.cat([functional.pad(part, (0, longest - part.shape[1])) for part in parts])


def old_readings(
    learner: Learner,
    prompts: Prompts,
    responses: Responses,
    *,
    recorder: SamplingRecorder | None,
    rows_at_once: int,
    step: int,
    processes: Processes,
) -> tuple[PolicyReading, Tensor, float | None]:
    """What policy and reference say of responses, and how far the recorder was off, None without one.

    What the recorder saw stands for the policy's own reading if that of one response, another one in each
    step, agrees with it in every process.
    """
    sampled, gap = None, None
    if recorder is not None:
        sampled = recorder.reading(responses)
        gap = first_ratio_gap(learner, prompts, responses, sampled, row=step % len(prompts))
        if processes.any(not gap <= MAX_GAP):  # not a number is not within it
            sampled = None
    policy, reference = read_responses(
        learner, prompts, responses, rows_at_once=rows_at_once, sampled=sampled
    )
    return policy, reference, gap


@torch.no_grad()
def first_ratio_gap(
    learner: Learner, prompts: Prompts, responses: Responses, sampled: PolicyReading, *, row: int
) -> float:
    """How far the ratio of any token of a row is from 1 if the policy reads it as training will."""
    one, length = torch.tensor([row]), int(responses.lengths[row])
    read = learner.read(prompts.select(one), responses.ids[one, :length], responses.mask[one, :length])
    return (read.logprobs - sampled.logprobs[one, :length]).exp().sub(1).abs().max().item()


@torch.no_grad()
def read_responses(
    learner: Learner,
    prompts: Prompts,
    responses: Responses,
    *,
    rows_at_once: int,
    sampled: PolicyReading | None = None,
) -> tuple[PolicyReading, Tensor]:
    """What policy and reference say of all responses, a few rows at a time.

    The policy is not asked if what it said while it drew them is given.
    """
    shape, mask = responses.ids.shape, responses.mask
    logprobs, reference, entropies, values = (torch.zeros(shape) for _ in range(4))
    every = torch.arange(len(prompts))
    for rows in chunks_by_length(every, prompts, responses, size=rows_at_once, pass_cost=learner.pass_cost):
        longest = int(responses.lengths[rows].max())
        batch = prompts.select(rows), responses.ids[rows, :longest], mask[rows, :longest]
        reference[rows, :longest] = learner.reference_logprobs(*batch)
        if sampled is not None:
            continue
        own = learner.read(*batch, with_entropies=True)
        logprobs[rows, :longest] = own.logprobs
        if own.entropies is not None:
            entropies[rows, :longest] = own.entropies
        if own.values is not None:
            values[rows, :longest] = own.values
    if sampled is not None:
        return sampled, reference
    has_values = learner.value_head is not None
    policy = PolicyReading(logprobs=logprobs, values=values if has_values else None, entropies=entropies)
    return policy, reference


def chunks_by_length(
    rows: Tensor, prompts: Prompts, responses: Responses, *, size: int, pass_cost: int | None = None
) -> tuple[Tensor, ...]:
    """The rows in chunks of at most ``size``, similar lengths together, the less padding to compute.

    With what a pass costs in tokens there are more chunks if their padding would cost more than passes.
    """
    asked, answered = prompts.mask.sum(dim=1)[rows].tolist(), responses.lengths[rows].tolist()
    return tuple(rows[chunk] for chunk in parts_by_cost(asked, answered, size=size, pass_cost=pass_cost))


def _limit(settings: PpoSettings, seed: int) -> int:
    if settings.min_limit is None:
        return settings.response_tokens
    return random.Random(seed).randint(settings.min_limit, settings.response_tokens)
