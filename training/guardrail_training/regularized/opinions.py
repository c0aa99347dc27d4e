"""What the oracle says of prefixes of known texts, for an auxiliary model that has seen few responses.

Drawing a response costs a pass of the language model per token, reading a known text one pass in all. Such
texts are not the language model's own and say nothing of what it will write; they show which words matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from guardrail_training.modeling import autocast
from guardrail_training.regularized.corpus import Passage
from guardrail_training.regularized.reading import padded
from guardrail_training.regularized.samples import Draws, opinions_of_prefixes
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.rewards.algebra import Answer, Reward

__all__ = ["Opinions", "read_opinions"]


@dataclass(frozen=True, slots=True, eq=False)
class Opinions:
    """The base's states before each token ``(rows, time, width)``, the tokens, and labels after each of them.

    ``ids`` and ``labels`` are ``(rows, time)``; a label is nan where the oracle was not asked.
    """

    states: Tensor
    ids: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.ids)


@torch.no_grad()
def read_opinions(
    learner: Learner,
    passages: Sequence[Passage],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: RegularizedSettings,
    dtype: torch.dtype,
) -> Opinions:
    """The base's states along texts, and what the oracle says of their prefixes, prompts left out."""
    prompts = learner.family.pad([passage.prompt for passage in passages])
    responses = padded([passage.response for passage in passages], pad_id=tokenizer.pad_token_id)
    answers = [Answer(query="", prompt="", response=passage.text) for passage in passages]
    rows, time = responses.ids.shape
    width = learner.model.get_base_model().get_output_embeddings().weight.shape[1]
    states = torch.zeros(rows, time, width)
    for chunk in torch.split(responses.lengths.argsort(stable=True), settings.microbatch_size):
        longest = int(responses.lengths[chunk].max())
        with autocast(dtype), learner.as_reference():
            states[chunk, :longest] = learner.family.states(
                prompts.select(chunk), responses.ids[chunk, :longest]
            ).float()
    labels = opinions_of_prefixes(
        reward, Draws(prompts, responses, answers), tokenizer=tokenizer, settings=settings
    )
    return Opinions(states, responses.ids, labels)
