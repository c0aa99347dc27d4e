"""The loss of examples under a model of either family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional

from guardrail_training.modeling import EncodedExample, autocast, collate, target_logits
from guardrail_training.modeling.families import EncoderDecoder, family_of
from guardrail_training.modeling.losses import token_cross_entropy

__all__ = ["TargetLoss", "recompute_layers", "target_tokens"]


def target_tokens(examples: Sequence[EncodedExample]) -> int:
    """How many tokens of the examples carry loss."""
    return sum(len(example.target) for example in examples)


class TargetLoss(nn.Module):
    """The negative log-likelihood of the examples' targets, prompts given; a causal model's prompts are part
    of its sequence, an encoder-decoder's go through the encoder.

    ``recomputes`` switches gradient checkpointing on: layers keep no state for the backward pass but compute
    it again. ``shares_prompts`` reads the opening that a causal model's prompts have in common once. Raises
    ConfigError for an architecture whose logits are not its head's product.
    """

    def __init__(
        self,
        model: Any,
        *,
        pad_id: int,
        dtype: torch.dtype,
        recomputes: bool = False,
        shares_prompts: bool = True,
    ) -> None:
        super().__init__()
        self.model = model
        base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
        was_training = model.training
        self._family = family_of(base.eval(), pad_id=pad_id)
        model.train(was_training)
        self._pad_id, self._dtype = pad_id, dtype
        # A layer that recomputes keeps no cache, so it cannot share the prompts' opening.
        self._shares_prompts = shares_prompts and not recomputes
        if recomputes:
            recompute_layers(base)

    def forward(self, examples: Sequence[EncodedExample]) -> Tensor:
        """The sum in nats over all target tokens, a float32 scalar."""
        with autocast(self._dtype, device=self.model.device.type):
            logits, targets = self._logits(examples)
        return token_cross_entropy(logits, targets) * len(targets)

    def of_each(self, examples: Sequence[EncodedExample]) -> Tensor:
        """The sums in nats of each example's target tokens, ``(examples,)`` float64 on the CPU."""
        with autocast(self._dtype, device=self.model.device.type):
            logits, targets = self._logits(examples)
        tokens = functional.cross_entropy(logits.to(torch.float32), targets, reduction="none")
        parts = torch.split(tokens.cpu().double(), [len(example.target) for example in examples])
        return torch.stack([part.sum() for part in parts])

    def _logits(self, examples: Sequence[EncodedExample]) -> tuple[Tensor, Tensor]:
        """Logits ``(tokens, vocabulary)`` and targets ``(tokens,)`` of the target positions."""
        if not isinstance(self._family, EncoderDecoder):
            batch = collate(examples, pad_id=self._pad_id)
            return target_logits(self.model, batch if self._shares_prompts else replace(batch, shared=0))
        prompts = self._family.pad([example.prompt for example in examples])
        targets = self._family.pad([example.target for example in examples])
        states = self._family.states(prompts, targets.ids)[targets.mask]  # (tokens, width)
        return self._family.head(states), targets.ids[targets.mask].to(states.device)


def recompute_layers(model: Any) -> None:
    """Switches gradient checkpointing on, which takes place in training mode alone."""
    # Not the reentrant kind: it needs an input with gradient, which a frozen embedding does not give.
    how = {"use_reentrant": False}
    try:
        enable = model.activation_checkpointing_enable
    except AttributeError:  # the name before transformers 5
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
    else:
        enable(activation_checkpointing_kwargs=how)
