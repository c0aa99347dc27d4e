"""Log-probabilities of tokens in float32, without ever holding the logits of a whole batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["Head", "scaled_logits", "token_entropies", "token_logprobs"]

Head = Callable[[Tensor], Tensor]
"""From states ``(tokens, width)`` to logits ``(tokens, vocabulary)``."""

CHUNK = 512
"""Tokens whose logits exist at a time: 100 MB in float32 for a vocabulary of 49k."""


def scaled_logits(states: Tensor, head: Head, *, temperature: float) -> Tensor:
    """The float32 logits that tokens are drawn from; sampling and scoring both take them from here."""
    return head(states).float() / temperature


def token_logprobs(states: Tensor, tokens: Tensor, head: Head, *, temperature: float) -> Tensor:
    """The log-probability of each token ``(tokens,)`` in the state ``(tokens, width)`` before it.

    More than one chunk is computed again in the backward pass in place of being kept for it.
    """

    def chunk_logprobs(states: Tensor, tokens: Tensor) -> Tensor:
        logits = scaled_logits(states, head, temperature=temperature)
        return logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(dim=1)

    if len(tokens) <= CHUNK:
        return chunk_logprobs(states, tokens)
    chunks = zip(torch.split(states, CHUNK), torch.split(tokens, CHUNK), strict=True)
    return torch.cat([checkpoint(chunk_logprobs, *chunk, use_reentrant=False) for chunk in chunks])


@torch.no_grad()
def token_entropies(states: Tensor, head: Head, *, temperature: float) -> Tensor:
    """The entropy in nats of the next token ``(tokens,)`` in each state; without gradient."""
    entropies = []
    for chunk in torch.split(states, CHUNK):
        logprobs = scaled_logits(chunk, head, temperature=temperature).log_softmax(dim=1)
        entropies.append(-(logprobs.exp() * logprobs).sum(dim=1))
    return torch.cat(entropies)
