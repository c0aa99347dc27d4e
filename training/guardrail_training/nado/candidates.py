"""The most likely next tokens, and one bucket for all others.

A row of 49,000 log-probabilities is 192 KB; 64 candidates of a trained language model hold nearly all of the
mass. What is computed over candidates and tail is exact if the candidates are the whole vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["likely_tokens", "over_candidates"]


def likely_tokens(logits: Tensor, *, count: int, taken: Tensor | None = None) -> Tensor:
    """Ids ``(tokens, count)`` of the most likely next tokens of logits ``(tokens, vocabulary)``.

    ``taken`` ``(tokens,)``, the token that follows in the text, replaces the least likely one if it is
    not among them. ``count`` is at most the vocabulary.
    """
    ids = logits.topk(min(count, logits.shape[1]), dim=1).indices
    if taken is not None:
        missing = ~(ids == taken[:, None]).any(dim=1)
        ids[:, -1] = torch.where(missing, taken, ids[:, -1])
    return ids


def over_candidates(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probabilities ``(tokens, count + 1)`` of candidates ``(tokens, count)`` and, last, of all others.

    In float32 at least; differentiable. The tail is summed over the others themselves, not as 1 less the
    rest, and is -inf if there are none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    of_candidates = logits.gather(1, ids)
    if ids.shape[1] == logits.shape[1]:
        others = torch.full_like(of_candidates[:, :1], -torch.inf)
    else:
        others = logits.scatter(1, ids, -torch.inf).logsumexp(dim=1, keepdim=True)
    return torch.cat([of_candidates, others], dim=1).log_softmax(dim=1)
