"""Policy, frozen reference and value function on one base.

Log-probabilities of tokens are computed in float32, and the logits of a whole batch are never held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from guardrail_training.modeling import autocast
from guardrail_training.modeling.families import Family, Prompts, family_of
from guardrail_training.supervised.network import recompute_layers

__all__ = [
    "Head",
    "Learner",
    "PolicyReading",
    "ValueHead",
    "scaled_logits",
    "token_logprobs",
    "token_metrics",
    "token_readings",
]

Head = Callable[[Tensor], Tensor]
"""From states ``(tokens, width)`` to logits ``(tokens, vocabulary)``."""

CHUNK = 128
"""Tokens whose logits exist at a time: 16 MB in float32 for a vocabulary of 32k, which allocators reuse."""

PASS_COST = {torch.float32: 48, torch.bfloat16: 256}
"""What a pass on a CPU costs before its first token, in tokens: weights are read, kernels started."""


def scaled_logits(states: Tensor, head: Head, *, temperature: float) -> Tensor:
    """The float32 logits that tokens are drawn from; sampling and scoring both take them from here."""
    return head(states).float() / temperature


def token_logprobs(
    states: Tensor, tokens: Tensor, head: Head, *, temperature: float, is_head_frozen: bool = False
) -> Tensor:
    """The log-probability of each token ``(tokens,)`` in the state ``(tokens, width)`` before it.

    A frozen head needs no second pass for the gradient: it is taken while the logits are there. Otherwise
    more than one chunk is computed again in the backward pass in place of being kept for it.
    """
    tokens = tokens.to(states.device)
    if is_head_frozen:
        found: Tensor = _FrozenHead.apply(states, tokens, head, temperature)  # type: ignore[no-untyped-call]  # torch leaves apply untyped
        return found

    def chunk_logprobs(states: Tensor, tokens: Tensor) -> Tensor:
        return _of_tokens(_log_softmax(states, head, temperature), tokens)

    if len(tokens) <= CHUNK:
        return chunk_logprobs(states, tokens)
    chunks = zip(torch.split(states, CHUNK), torch.split(tokens, CHUNK), strict=True)
    return torch.cat([checkpoint(chunk_logprobs, *chunk, use_reentrant=False) for chunk in chunks])


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities whose gradient is known with them: that of one is (1[token] - p) W / temperature."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, tokens: Tensor, head: Head, temperature: float) -> Tensor:
        logprobs, gradients = [], []
        for part, own in zip(torch.split(states, CHUNK), torch.split(tokens, CHUNK), strict=True):
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                read = part.detach().requires_grad_(ctx.needs_input_grad[0])
                logits = head(read)
            shares = (logits.detach().float() / temperature).log_softmax(dim=1)
            logprobs.append(_of_tokens(shares, own))
            if ctx.needs_input_grad[0]:
                slope = shares.exp_().neg_()
                slope[torch.arange(len(own), device=own.device), own] += 1
                slope = slope.div_(temperature).to(logits.dtype)
                gradients.append(torch.autograd.grad(logits, read, slope)[0])
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(logprobs)

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return (gradients * weights[:, None]).to(gradients.dtype), None, None, None


def _log_softmax(states: Tensor, head: Head, temperature: float) -> Tensor:
    return scaled_logits(states, head, temperature=temperature).log_softmax(dim=1)


def _of_tokens(shares: Tensor, tokens: Tensor) -> Tensor:
    return shares.gather(1, tokens[:, None])[:, 0]


def token_metrics(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each token ``(tokens,)`` and entropy in nats of what it was drawn from."""
    shares = logits.log_softmax(dim=1)
    return _of_tokens(shares, tokens), -(shares.exp() * shares).sum(dim=1)


@torch.no_grad()
def token_readings(
    states: Tensor, tokens: Tensor, head: Head, *, temperature: float
) -> tuple[Tensor, Tensor]:
    """``token_metrics`` from the states before the tokens; each logit is computed once, without gradient."""
    parts = zip(torch.split(states, CHUNK), torch.split(tokens.to(states.device), CHUNK), strict=True)
    metrics = [token_metrics(scaled_logits(part, head, temperature=temperature), own) for part, own in parts]
    return torch.cat([logprobs for logprobs, _ in metrics]), torch.cat(
        [entropies for _, entropies in metrics]
    )


@dataclass(frozen=True, slots=True, eq=False)
class PolicyReading:
    """What the learner says of responses, each ``(rows, time)`` float32 and 0 outside the mask.

    ``values`` is None without a value function, ``entropies`` unless it was asked for.
    """

    logprobs: Tensor
    values: Tensor | None
    entropies: Tensor | None


class ValueHead(nn.Module):
    """What a state is worth: linear in the normalised state, in float32, 0 until trained, without dropout.

    The state is normalised because families differ a hundredfold in the scale of theirs.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Values ``(tokens,)`` of states ``(tokens, width)``."""
        values: Tensor = self.linear(functional.layer_norm(states.float(), states.shape[-1:]))
        return values[:, 0]


class Learner(nn.Module):
    """A base with a LoRA adapter, which is the policy; without it, the reference.

    The value head reads the policy's states, so that one forward pass serves both. It stands outside the peft
    model: switching the adapter off must not touch it. Everything runs without dropout, or the policy would
    not agree with itself (https://arxiv.org/abs/2403.17031, detail 3.4).

    What it reads lies on the CPU, and what it says too; in between is the model's device.

    With ``recomputes``, layers keep no state for an update's backward pass but compute it again.
    """

    def __init__(
        self,
        model: PeftModel,
        *,
        pad_id: int,
        temperature: float,
        dtype: torch.dtype,
        has_values: bool,
        recomputes: bool = False,
        is_sharded: bool = False,
    ) -> None:
        super().__init__()
        self.model = model.eval()
        base: Any = model.get_base_model()
        self.pass_cost = PASS_COST[dtype] if model.device.type == "cpu" and not is_sharded else None
        """In tokens; None where rows are read as many at a time as may be: on a GPU, whose passes are full by
        more rows alone, and of a sharded base, since all processes have to make the same number."""
        self.family: Family = family_of(base, pad_id=pad_id, pass_cost=self.pass_cost)
        width = base.get_output_embeddings().weight.shape[1]
        self.value_head = ValueHead(width).to(model.device) if has_values else None
        self.temperature = temperature
        self._dtype, self._recomputes = dtype, recomputes
        self._is_head_frozen = not any(
            parameter.requires_grad for parameter in base.get_output_embeddings().parameters()
        )
        if recomputes:
            recompute_layers(base)
        self.eval()

    def read(
        self, prompts: Prompts, responses: Tensor, mask: Tensor, *, with_entropies: bool = False
    ) -> PolicyReading:
        """Log-probabilities and values of the policy, with gradients where they are enabled.

        ``responses`` and ``mask`` are ``(rows, time)``; padding and prompts get no logits and no gradient.
        With entropies, log-probabilities have no gradient.
        """
        entropies = None
        with self.autocast():
            states = self.family.states(prompts, responses)[mask]  # (tokens, width)
            if with_entropies:
                logprobs, entropies = token_readings(
                    states, responses[mask], self.family.head, temperature=self.temperature
                )
            else:
                logprobs = self._logprobs(states, responses[mask])
        values = self.value_head(states) if self.value_head is not None else None
        return PolicyReading(
            logprobs=_placed(logprobs, mask),
            values=None if values is None else _placed(values, mask),
            entropies=None if entropies is None else _placed(entropies, mask),
        )

    @torch.no_grad()
    def reference_logprobs(self, prompts: Prompts, responses: Tensor, mask: Tensor) -> Tensor:
        """The reference's log-probabilities ``(rows, time)`` of the same tokens."""
        with self.as_reference(), self.autocast():
            states = self.family.states(prompts, responses)[mask]
            logprobs = self._logprobs(states, responses[mask])
        return _placed(logprobs, mask)

    def _logprobs(self, states: Tensor, tokens: Tensor) -> Tensor:
        return token_logprobs(
            states,
            tokens,
            self.family.head,
            temperature=self.temperature,
            is_head_frozen=self._is_head_frozen,
        )

    def autocast(self) -> AbstractContextManager[None]:
        """Matrix products in the learner's format while inside."""
        return autocast(self._dtype, device=self.model.device.type)

    @contextmanager
    def sampling(self) -> Iterator[Family]:
        """The policy's family, in the number format that it is scored in."""
        with torch.no_grad(), self.autocast():
            yield self.family

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """The reference in the policy's place; a policy that has learned nothing is the same, and slower."""
        with self.model.disable_adapter():
            yield

    @contextmanager
    def updating(self) -> Iterator[None]:
        """The policy for passes that a backward pass follows."""
        # Layers recompute in training mode alone. Nothing else differs in it: no dropout is left.
        self.model.train(self._recomputes)
        try:
            yield
        finally:
            self.model.eval()


def _placed(values: Tensor, mask: Tensor) -> Tensor:
    """Values ``(tokens,)`` at the true places of ``mask``, and on its device; zeros elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype).masked_scatter(mask, values.to(mask.device))
