"""What the regularizer teaches: texts with the posterior before each of their tokens, taken once, held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail_training.modeling.families import Prompts
from guardrail_training.nado.balance import prefix_importance
from guardrail_training.nado.guidance import Guidance, Guided
from guardrail_training.nado.posterior import prefix_weights
from guardrail_training.regularized.corpus import Passage
from guardrail_training.regularized.reading import Reading, padded, read
from guardrail_training.regularized.samples import Samples
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.sampling import Responses

__all__ = ["Lessons", "corpus_lessons", "sample_lessons"]


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """Texts ``(rows, time)`` and, before each token, the posterior over candidates and what it counts."""

    prompts: Prompts
    responses: Responses
    ids: Tensor  # (rows, time, candidates)
    log_q: Tensor  # (rows, time, candidates + 1)
    weights: Tensor  # (rows, time)

    def select(self, rows: Tensor) -> Lessons:
        """Some of the texts, without the columns that are padding in all of them."""
        lengths = self.responses.lengths[rows]
        time = int(lengths.max())
        return Lessons(
            prompts=self.prompts.select(rows),
            responses=Responses(
                ids=self.responses.ids[rows, :time], lengths=lengths, ended=self.responses.ended[rows]
            ),
            ids=self.ids[rows, :time],
            log_q=self.log_q[rows, :time],
            weights=self.weights[rows, :time],
        )


def corpus_lessons(
    learner: Learner,
    guidance: Guidance,
    passages: Sequence[Passage],
    *,
    settings: RegularizedSettings,
    pad_id: int,
    is_base: bool,
    dtype: torch.dtype,
) -> Lessons:
    """The posterior along corpus texts, every prefix counting alike.

    The texts were not drawn from it, so the mean over them is not KL(q* || p) itself; that is what
    ``sample_lessons`` is for.
    """
    prompts = learner.family.pad([passage.prompt for passage in passages])
    responses = padded([passage.response for passage in passages], pad_id=pad_id)
    reading = read(
        learner,
        prompts,
        responses,
        candidates=settings.candidates,
        rows_at_once=settings.microbatch_size,
        dtype=dtype,
        is_base=is_base,
    )
    guided = guidance.over(reading.states, reading.ids, reading.log_p)
    weights = _counting(guided, settings) * responses.mask
    return Lessons(prompts, responses, reading.ids, guided.log_q, weights)


def sample_lessons(
    learner: Learner,
    guidance: Guidance,
    samples: Samples,
    *,
    settings: RegularizedSettings,
    are_fresh: bool,
    dtype: torch.dtype,
) -> Lessons:
    """The posterior along drawn responses, whose prefixes count as the posterior would reach them.

    Responses that an earlier language model drew (``are_fresh`` false) are read again, and each prefix is
    weighed by how likely it is now.
    """
    reading, weights = samples.reading, samples.weights[:, None] * samples.responses.mask
    if not are_fresh:
        reading = _read_again(learner, samples, settings=settings, dtype=dtype)
        weights = weights * prefix_importance(
            reading.log_taken - samples.reading.log_taken,
            samples.responses.mask,
            least=settings.least_weight,
            most=settings.most_weight,
        )
    guided = guidance.over(reading.states, reading.ids, reading.log_p)
    reached = prefix_weights(guided.log_success, most=settings.most_prefix_weight)
    weights = weights * reached * _counting(guided, settings)
    return Lessons(samples.prompts, samples.responses, reading.ids, guided.log_q, weights)


def _read_again(
    learner: Learner, samples: Samples, *, settings: RegularizedSettings, dtype: torch.dtype
) -> Reading:
    return read(
        learner,
        samples.prompts,
        samples.responses,
        candidates=settings.candidates,
        rows_at_once=settings.microbatch_size,
        dtype=dtype,
        states=samples.reading.states,
    )


def _counting(guided: Guided, settings: RegularizedSettings) -> Tensor:
    """0 where all is lost, else 1, or what may still fail where that is the gate ``(rows, time)``."""
    success = guided.log_success.exp()
    counting = (success >= settings.least_success).float()
    return counting * (1 - success) if settings.gate == "failure" else counting
