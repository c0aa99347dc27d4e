"""What the regularizer teaches, and how the language model learns it alongside its corpus.

Its targets are texts with the posterior before each of their tokens, computed once and held constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guardrail.errors import FailureError
from guardrail_training.modeling import trainable_parameters
from guardrail_training.modeling.families import Prompts
from guardrail_training.nado.balance import prefix_importance
from guardrail_training.nado.guidance import Guidance, Guided
from guardrail_training.nado.posterior import prefix_weights, token_kl
from guardrail_training.regularized.corpus import CorpusPassage
from guardrail_training.regularized.samples import (
    LabelledSamples,
    TokenPredictions,
    candidate_logprobs,
    padded,
    read,
)
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import Learner, token_logprobs
from guardrail_training.reinforcement.rollouts import Responses
from guardrail_training.run import clip_gradients

__all__ = ["PosteriorTargets", "TuneBatch", "corpus_targets", "sample_targets", "tune_step"]


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorTargets:
    """Texts ``(rows, time)`` and, before each token, the posterior over candidates and what it counts."""

    prompts: Prompts
    responses: Responses
    ids: Tensor  # (rows, time, candidates)
    log_q: Tensor  # (rows, time, candidates + 1)
    weights: Tensor  # (rows, time)

    def select(self, rows: Tensor) -> PosteriorTargets:
        """Some of the texts, without the columns that are padding in all of them."""
        lengths = self.responses.lengths[rows]
        time = int(lengths.max())
        return PosteriorTargets(
            prompts=self.prompts.select(rows),
            responses=Responses(
                ids=self.responses.ids[rows, :time], lengths=lengths, ended=self.responses.ended[rows]
            ),
            ids=self.ids[rows, :time],
            log_q=self.log_q[rows, :time],
            weights=self.weights[rows, :time],
        )


def corpus_targets(
    learner: Learner,
    guidance: Guidance,
    passages: Sequence[CorpusPassage],
    *,
    settings: RegularizedSettings,
    pad_id: int,
    is_base: bool,
) -> PosteriorTargets:
    """The posterior along corpus texts, every prefix counting alike.

    The texts were not drawn from it, so the mean over them is not KL(q* || p) itself; that is what
    ``sample_targets`` is for.
    """
    prompts = learner.family.pad([passage.prompt for passage in passages])
    responses = padded([passage.response for passage in passages], pad_id=pad_id)
    reading = read(
        learner,
        prompts,
        responses,
        candidates=settings.candidates,
        rows_at_once=settings.microbatch_size,
        is_base=is_base,
    )
    guided = guidance.over(reading.states, reading.ids, reading.log_p)
    weights = _counting(guided, settings) * responses.mask
    return PosteriorTargets(prompts, responses, reading.ids, guided.log_q, weights)


def sample_targets(
    learner: Learner,
    guidance: Guidance,
    samples: LabelledSamples,
    *,
    settings: RegularizedSettings,
    are_fresh: bool,
) -> PosteriorTargets:
    """The posterior along drawn responses, whose prefixes count as the posterior would reach them.

    Responses that an earlier language model drew (``are_fresh`` false) are read again, and each prefix is
    weighed by how likely it is now.
    """
    reading, weights = samples.reading, samples.weights[:, None] * samples.responses.mask
    if not are_fresh:
        reading = _read_again(learner, samples, settings=settings)
        weights = weights * prefix_importance(
            reading.log_taken - samples.reading.log_taken,
            samples.responses.mask,
            min_weight=settings.min_weight,
            max_weight=settings.max_weight,
        )
    guided = guidance.over(reading.states, reading.ids, reading.log_p)
    reached = prefix_weights(guided.log_success, max_weight=settings.max_prefix_weight)
    weights = weights * reached * _counting(guided, settings)
    return PosteriorTargets(samples.prompts, samples.responses, reading.ids, guided.log_q, weights)


def _read_again(
    learner: Learner, samples: LabelledSamples, *, settings: RegularizedSettings
) -> TokenPredictions:
    return read(
        learner,
        samples.prompts,
        samples.responses,
        candidates=settings.candidates,
        rows_at_once=settings.microbatch_size,
        states=samples.reading.states,
    )


def _counting(guided: Guided, settings: RegularizedSettings) -> Tensor:
    """0 if no success is left, else 1, or 1 - R if the gate is ``failure`` ``(rows, time)``."""
    success = guided.log_success.exp()
    counting = (success >= settings.min_success).float()
    return counting * (1 - success) if settings.gate == "failure" else counting


@dataclass(frozen=True, slots=True, eq=False)
class TuneBatch:
    """What one optimizer step learns from.

    ``plain`` corpus texts carry the language-model loss alone, ``taught`` ones the regularizer too, ``drawn``
    responses the regularizer alone.
    """

    plain: Sequence[CorpusPassage] = field(repr=False)
    taught: PosteriorTargets | None
    drawn: PosteriorTargets | None


@dataclass(slots=True)
class _Sums:
    """Sums of losses in nats, and the tokens of the corpus."""

    language_model: float = 0.0
    corpus: float = 0.0
    samples: float = 0.0


def tune_step(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    batch: TuneBatch,
    *,
    corpus_weight: float,
    samples_weight: float,
    microbatch_size: int,
    max_grad_norm: float,
) -> dict[str, float]:
    """One optimizer step; returns its means per token by metric name.

    The loss is the mean over corpus tokens of -log p, plus ``corpus_weight`` times the mean over the same
    tokens of KL(q || p), which is 0 if nothing is taught, and ``samples_weight`` times that over drawn
    ones. Rows at a time change nothing but memory.
    """
    optimizer.zero_grad(set_to_none=True)
    taught = 0 if batch.taught is None else int(batch.taught.responses.lengths.sum())
    drawn = 0 if batch.drawn is None else int(batch.drawn.responses.lengths.sum())
    corpus = taught + sum(len(passage.response) for passage in batch.plain)
    sums = _Sums()
    # General corpus texts: -log p of the tokens alone, as in plain fine-tuning.
    for rows in _parts([len(passage.prompt) for passage in batch.plain], microbatch_size):
        passages = [batch.plain[int(row)] for row in rows]
        loss = -_plain_logprobs(learner, passages).sum()
        _backward(loss / corpus)
        sums.language_model += loss.item()
    # Guided corpus texts: the same, and KL(q || p) before each token, which is the regularizer of Meng et al.
    # 2024. Divided by all corpus tokens, so that microbatches add up to the mean over the batch.
    if batch.taught is not None:
        for rows in _parts(batch.taught.prompts.mask.sum(dim=1), microbatch_size):
            log_p_taken, kl = _taught(learner, batch.taught.select(rows))
            loss = -log_p_taken.sum()
            _backward((loss + corpus_weight * kl.sum()) / corpus)
            sums.language_model += loss.item()
            sums.corpus += kl.sum().item()
    # Responses of the model itself: the KL alone, since they are samples and not text to imitate.
    if batch.drawn is not None:
        for rows in _parts(batch.drawn.prompts.mask.sum(dim=1), microbatch_size):
            _, kl = _taught(learner, batch.drawn.select(rows))
            _backward(samples_weight * kl.sum() / drawn)
            sums.samples += kl.sum().item()
    norm = clip_gradients(
        trainable_parameters(learner),
        max_grad_norm,
        error=lambda: FailureError("the language model's gradient is not finite; lower learning_rate"),
    )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {
        "loss/language_model": sums.language_model / max(corpus, 1),
        "loss/corpus_kl": sums.corpus / max(taught, 1),
        "loss/samples_kl": sums.samples / max(drawn, 1),
        "grad_norm": norm,
        "tokens/corpus": float(corpus),
        "tokens/drawn": float(drawn),
    }


def _parts(prompt_lengths: Sequence[int] | Tensor, size: int) -> tuple[Tensor, ...]:
    """Rows at most ``size`` at a time, like prompts together: less padding, and a shared one is read once."""
    if not len(prompt_lengths):
        return ()
    return torch.split(torch.as_tensor(prompt_lengths).argsort(stable=True), size)


def _backward(loss: Tensor) -> None:
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped


def _plain_logprobs(learner: Learner, passages: Sequence[CorpusPassage]) -> Tensor:
    """The log-probability of each learned token ``(tokens,)``."""
    prompts = learner.family.pad([passage.prompt for passage in passages])
    responses = padded([passage.response for passage in passages], pad_id=0)
    with learner.autocast():
        states = _states(learner, prompts, responses)
        tokens = responses.ids[responses.mask]
        return token_logprobs(states, tokens, learner.family.head, temperature=1.0)


def _taught(learner: Learner, targets: PosteriorTargets) -> tuple[Tensor, Tensor]:
    """The log-probability of each token, and the regularizer before it as it counts, both ``(tokens,)``."""
    mask = targets.responses.mask
    with learner.autocast():
        states = _states(learner, targets.prompts, targets.responses)
        ids = targets.ids[mask]
        log_p = candidate_logprobs(states, ids, family=learner.family).cpu()
    # The token that follows is always among the candidates.
    taken = log_p[:, :-1][ids == targets.responses.ids[mask][:, None]]
    return taken, targets.weights[mask] * token_kl(targets.log_q[mask], log_p)


def _states(learner: Learner, prompts: Prompts, responses: Responses) -> Tensor:
    states: Tensor = learner.family.states(prompts, responses.ids)[responses.mask]
    return states
