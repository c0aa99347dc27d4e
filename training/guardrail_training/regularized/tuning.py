"""Fine-tunes the language model: its loss on the mixture, and the regularizer beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from guardrail.errors import FailureError
from guardrail_training.modeling import autocast, trainable_parameters
from guardrail_training.modeling.families import Prompts
from guardrail_training.nado.posterior import token_kl
from guardrail_training.regularized.corpus import Passage
from guardrail_training.regularized.lessons import Lessons
from guardrail_training.regularized.reading import candidate_logprobs, padded
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.logprobs import token_logprobs
from guardrail_training.reinforcement.sampling import Responses

__all__ = ["Batch", "tune_step"]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What one optimizer step learns from.

    ``plain`` corpus texts carry the language-model loss alone, ``taught`` ones the regularizer too, ``drawn``
    responses the regularizer alone.
    """

    plain: Sequence[Passage] = field(repr=False)
    taught: Lessons | None
    drawn: Lessons | None


@dataclass(slots=True)
class _Sums:
    """Sums of losses in nats, and the tokens of the corpus."""

    language_model: float = 0.0
    corpus: float = 0.0
    samples: float = 0.0


def tune_step(
    learner: Learner,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    corpus_weight: float,
    samples_weight: float,
    microbatch_size: int,
    max_grad_norm: float,
    dtype: torch.dtype,
) -> dict[str, float]:
    """One optimizer step; returns its means per token by metric name.

    The loss is the mean over corpus tokens of -log p, plus ``corpus_weight`` times the mean over the same
    tokens of KL(q || p), which is 0 where nothing is taught, and ``samples_weight`` times that over drawn
    ones. Rows at a time change nothing but memory.
    """
    optimizer.zero_grad(set_to_none=True)
    taught = 0 if batch.taught is None else int(batch.taught.responses.lengths.sum())
    drawn = 0 if batch.drawn is None else int(batch.drawn.responses.lengths.sum())
    corpus = taught + sum(len(passage.response) for passage in batch.plain)
    sums = _Sums()
    for rows in _parts([len(passage.prompt) for passage in batch.plain], microbatch_size):
        chosen = [batch.plain[int(row)] for row in rows]
        loss = -_plain_logprobs(learner, chosen, dtype=dtype).sum()
        _backward(loss / corpus)
        sums.language_model += loss.item()
    if batch.taught is not None:
        for rows in _parts(batch.taught.prompts.mask.sum(dim=1), microbatch_size):
            log_p_taken, kl = _taught(learner, batch.taught.select(rows), dtype=dtype)
            loss = -log_p_taken.sum()
            _backward((loss + corpus_weight * kl.sum()) / corpus)
            sums.language_model += loss.item()
            sums.corpus += kl.sum().item()
    if batch.drawn is not None:
        for rows in _parts(batch.drawn.prompts.mask.sum(dim=1), microbatch_size):
            _, kl = _taught(learner, batch.drawn.select(rows), dtype=dtype)
            _backward(samples_weight * kl.sum() / drawn)
            sums.samples += kl.sum().item()
    norm = torch.nn.utils.clip_grad_norm_(trainable_parameters(learner), max_grad_norm)
    if not bool(torch.isfinite(norm)):
        raise FailureError("the language model's gradient is not finite; lower learning_rate")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {
        "loss/language_model": sums.language_model / max(corpus, 1),
        "loss/corpus_kl": sums.corpus / max(taught, 1),
        "loss/samples_kl": sums.samples / max(drawn, 1),
        "grad_norm": norm.item(),
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


def _plain_logprobs(learner: Learner, passages: Sequence[Passage], *, dtype: torch.dtype) -> Tensor:
    """The log-probability of each learned token ``(tokens,)``."""
    prompts = learner.family.pad([passage.prompt for passage in passages])
    responses = padded([passage.response for passage in passages], pad_id=0)
    with autocast(dtype):
        states = _states(learner, prompts, responses)
        tokens = responses.ids[responses.mask]
        return token_logprobs(states, tokens, learner.family.head, temperature=1.0)


def _taught(learner: Learner, lessons: Lessons, *, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The log-probability of each token, and the regularizer before it as it counts, both ``(tokens,)``."""
    mask = lessons.responses.mask
    with autocast(dtype):
        states = _states(learner, lessons.prompts, lessons.responses)
        ids = lessons.ids[mask]
        log_p = candidate_logprobs(states, ids, family=learner.family)
    # The token that follows is always among the candidates.
    taken = log_p[:, :-1][ids == lessons.responses.ids[mask][:, None]]
    return taken, lessons.weights[mask] * token_kl(lessons.log_q[mask], log_p)


def _states(learner: Learner, prompts: Prompts, responses: Responses) -> Tensor:
    states: Tensor = learner.family.states(prompts, responses.ids)[responses.mask]
    return states
