"""What base and language model say of responses, token by token, over the likely candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from guardrail_training.modeling import autocast
from guardrail_training.modeling.families import Family, Prompts
from guardrail_training.nado.candidates import likely_tokens, over_candidates
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.sampling import Responses

__all__ = ["Reading", "candidate_logprobs", "padded", "read"]

CHUNK = 512
"""Tokens whose logits exist at a time: 100 MB in float32 for a vocabulary of 49k."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Of responses ``(rows, time)``, before each token, zeros where there is none.

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

    def select(self, rows: Tensor, *, time: int) -> Reading:
        """Some of the rows, cut to their first columns."""
        return Reading(
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
    dtype: torch.dtype,
    states: Tensor | None = None,
    is_base: bool = False,
) -> Reading:
    """Two passes over each row: the base's states, and the language model as it stands.

    One pass is enough where ``states``, the base's, are known from an earlier reading, or where the language
    model still ``is_base``.
    """
    rows, time = responses.ids.shape
    vocabulary, width = learner.model.get_base_model().get_output_embeddings().weight.shape
    candidates = min(candidates, vocabulary)
    found = Reading(
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
        with autocast(dtype):
            if is_base or states is None:
                with learner.as_reference():
                    of_base = learner.family.states(batch, ids)[mask]  # (tokens, width)
                found.states[row, column] = of_base.float()
            own = of_base if is_base else learner.family.states(batch, ids)[mask]
            for part in torch.split(torch.arange(len(own)), CHUNK):
                where = row[part], column[part]
                logits, taken = learner.family.head(own[part]), ids[mask][part]
                chosen = likely_tokens(logits, count=candidates, taken=taken)
                log_p = over_candidates(logits, chosen)
                found.ids[where], found.log_p[where] = chosen, log_p
                found.log_taken[where] = log_p[:, :-1][chosen == taken[:, None]]
    return found


def candidate_logprobs(states: Tensor, ids: Tensor, *, family: Family) -> Tensor:
    """The language model's log-probabilities ``(tokens, candidates + 1)``, with gradients where enabled.

    A batch of corpus text is one chunk; more are computed again in the backward pass in place of being kept.
    """

    def chunk_logprobs(states: Tensor, ids: Tensor) -> Tensor:
        return over_candidates(family.head(states), ids)

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
