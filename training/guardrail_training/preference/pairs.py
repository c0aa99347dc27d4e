"""Encoded pairs, the batches of a run over them, and what a model says of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from guardrail.manifest import Template
from guardrail_training.data import bucketed_batches
from guardrail_training.modeling import Example, encode_example
from guardrail_training.preference.comparisons import Comparison
from guardrail_training.reinforcement.learner import Learner

__all__ = ["Pair", "PairLogprobs", "encode_comparisons", "plan_batches", "read_pairs"]


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with the response that is better and the one that is worse."""

    chosen: Example
    rejected: Example

    def __len__(self) -> int:
        return max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, slots=True, eq=False)
class PairLogprobs:
    """Sums of token log-probabilities of both responses and their lengths in tokens, all ``(pairs,)``."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor

    @property
    def mean_chosen(self) -> Tensor:
        """The chosen's mean log-probability per token."""
        return self.chosen / self.chosen_tokens

    @property
    def mean_rejected(self) -> Tensor:
        """The rejected's mean log-probability per token."""
        return self.rejected / self.rejected_tokens


def encode_comparisons(
    comparisons: Iterable[Comparison], *, tokenizer: Any, template: Template
) -> tuple[Pair, ...]:
    """The pair of each comparison, both responses ending in the end-of-text token."""
    return tuple(
        Pair(
            *(
                encode_example(tokenizer, template, source=comparison.query, target=response)
                for response in (comparison.chosen, comparison.rejected)
                if response is not None
            )
        )
        for comparison in comparisons
    )


def plan_batches(pairs: Sequence[Pair], *, passes: int, batch_size: int, seed: int) -> list[list[int]]:
    """The indices of each step's pairs, similar lengths together, each pair once in every pass."""
    lengths = [len(pair) for pair in pairs]
    return [
        batch
        for pass_index in range(passes)
        for batch in bucketed_batches(lengths, batch_size=batch_size, seed=seed, pass_index=pass_index)
    ]


def read_pairs(learner: Learner, pairs: Sequence[Pair], *, pad_id: int) -> PairLogprobs:
    """What the policy says of both responses to each prompt, with gradients where they are enabled."""
    examples = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    responses = pad_sequence(
        [torch.tensor(example.target) for example in examples], batch_first=True, padding_value=pad_id
    )  # (2 * pairs, time)
    lengths = torch.tensor([len(example.target) for example in examples])
    mask = torch.arange(responses.shape[1]) < lengths[:, None]
    prompts = learner.family.pad([example.prompt for example in examples])
    sums = learner.read(prompts, responses, mask).logprobs.sum(dim=1)
    count = len(pairs)
    return PairLogprobs(sums[:count], sums[count:], lengths[:count], lengths[count:])
