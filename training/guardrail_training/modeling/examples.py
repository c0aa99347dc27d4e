"""Pairs of texts as token ids, their batches, and a causal model's logits at their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache

from guardrail.manifest import Encoder, Template
from guardrail_training.modeling.losses import IGNORED

__all__ = ["EncodedExample", "ExampleBatch", "collate", "encode_example", "target_logits"]


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of one prompt and its target; the target ends with the end-of-text id."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.target)


@dataclass(frozen=True, slots=True)
class ExampleBatch:
    """Right-padded ids and labels, both ``(batch, time)`` int64; only target positions carry labels.

    The first ``shared`` ids are equal in all rows and end before the last id of any prompt.
    """

    input_ids: Tensor
    labels: Tensor
    shared: int

    @property
    def target_tokens(self) -> int:
        """How many positions carry a label."""
        return int((self.labels != IGNORED).sum())


def encode_example(tokenizer: Any, template: Template, *, source: str, target: str) -> EncodedExample:
    """Ids of one pair: the prompt as it is served, the target ending in the end-of-text id.

    Control tokens that occur in either text are split into ordinary pieces.
    """
    encoder: Encoder = tokenizer
    ids = encoder.encode(target, add_special_tokens=False, split_special_tokens=True)
    return EncodedExample(
        prompt=tuple(template.encode(encoder, source)), target=(*ids, tokenizer.eos_token_id)
    )


def collate(examples: Sequence[EncodedExample], *, pad_id: int) -> ExampleBatch:
    """One right-padded batch; labels are the target's ids at the target's own positions."""
    longest = max(len(example) for example in examples)
    input_ids = torch.full((len(examples), longest), pad_id, dtype=torch.int64)  # (batch, time)
    labels = torch.full((len(examples), longest), IGNORED, dtype=torch.int64)
    for row, example in enumerate(examples):
        input_ids[row, : len(example)] = torch.tensor(example.prompt + example.target)
        labels[row, len(example.prompt) : len(example)] = torch.tensor(example.target)
    return ExampleBatch(input_ids=input_ids, labels=labels, shared=_shared_ids(examples))


def _shared_ids(examples: Sequence[EncodedExample]) -> int:
    # A prompt's last id predicts the first target, so it stays in the part that each row has alone.
    columns = zip(*(example.prompt[:-1] for example in examples), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def target_logits(model: Any, batch: ExampleBatch) -> tuple[Tensor, Tensor]:
    """Logits ``(tokens, vocabulary)`` and targets ``(tokens,)`` of the labelled positions only.

    The position before a label predicts it. Two savings that change no number but for rounding: the opening
    ids that all rows share run through the model once, gradients included, and the product with the
    vocabulary's 49k rows is taken at labelled positions alone. No attention mask is passed: padding is on the
    right, so causal attention already keeps it from every real position.
    """
    causal: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    trunk = causal.base_model
    ids, labels = batch.input_ids[:, :-1].to(causal.device), batch.labels[:, 1:].to(causal.device)
    shared = batch.shared
    cache = None
    if shared:
        cache = DynamicCache(config=causal.config)
        trunk(input_ids=ids[:1, :shared], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(ids))
    states = trunk(
        input_ids=ids[:, shared:], past_key_values=cache, use_cache=cache is not None
    ).last_hidden_state  # (batch, time - shared - 1, width)
    labels = labels[:, shared:]
    labelled = labels != IGNORED
    return causal.get_output_embeddings()(states[labelled]), labels[labelled]
