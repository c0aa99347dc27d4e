"""The distribution closest to a language model that satisfies the constraint, token by token.

    q*(v | prefix) = p(v | prefix) R(prefix v) / R(prefix),    R(prefix) = sum_v p(v | prefix) R(prefix v)

Of whole responses it is q*(y) = p(y) C(y) / R(prompt), C being the oracle's label. With labels of 0 and 1 it
is the only q with E_q[C] = 1 that has the least KL(q || p), which is -log R(prompt): minus the logarithm of 1
less the rate of failures. With labels between it is where KL(q || p) - E_q[log C] is least, and it is nearer
to p by the expectation of -log C under it (``response_kl``). Tensors are over candidates and tail
(``candidates``), the tail last. The tail's own R is taken to be that of the prefix, so it keeps its
probability; nothing is lost if the candidates are the whole vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from guardrail_training.nado.balance import success_rate

__all__ = ["expected_success", "posterior", "prefix_weights", "response_kl", "token_kl"]


def expected_success(log_p: Tensor, log_success: Tensor) -> Tensor:
    """log R of prefixes ``(tokens,)``, from that of every continuation by one token.

    ``log_p`` is ``(tokens, candidates + 1)``, ``log_success`` ``(tokens, candidates)``.
    """
    candidates = log_p[:, :-1]
    return (candidates + log_success).logsumexp(dim=1) - candidates.logsumexp(dim=1)


def posterior(
    log_p: Tensor, log_success: Tensor, *, strength: float = 1.0, max_log_ratio: float | None = None
) -> Tensor:
    """log q ``(tokens, candidates + 1)``, with q in proportion to ``p R ** strength``.

    ``max_log_ratio`` bounds |log q/p| before q is normalised, so that one wrong R cannot rule a token out.
    If no continuation can succeed, there is no posterior, and q is p.
    """
    guided = strength * log_success
    normaliser = expected_success(log_p, guided)[:, None]
    has_posterior = normaliser > -torch.inf
    log_ratio = torch.where(has_posterior, guided - normaliser, 0.0)
    if max_log_ratio is not None:
        log_ratio = log_ratio.clamp(-max_log_ratio, max_log_ratio)
    # Adding 0 keeps the tail at p.
    return torch.cat([log_p[:, :-1] + log_ratio, log_p[:, -1:]], dim=1).log_softmax(dim=1)


def token_kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(q || p) in nats ``(tokens,)``: the regularizer, with q a constant.

    Its gradient is that of the cross entropy with q as a soft label; q itself gets none.
    """
    log_q = log_q.detach()
    q = log_q.exp()
    return torch.where(q > 0, q * (log_q - log_p), 0.0).sum(dim=1)


def response_kl(labels: Tensor, weights: Tensor) -> float:
    """KL(q* || p) of whole responses in nats, from responses of p with labels in 0..1, both ``(rows,)``.

    ``weights`` are the responses' probabilities, or the importance weights of drawn ones. It is the mean of
    log C under q* less log R; log C is 0 wherever q* puts anything if labels are 0 and 1. Prompts are taken
    together: the mean over prompts of their own distances takes many responses of each.
    """
    rate = success_rate(labels, weights)
    log_label = float((weights * torch.xlogy(labels, labels)).sum() / weights.sum()) / rate
    return log_label - math.log(rate)


def prefix_weights(log_success: Tensor, *, max_weight: float = torch.inf) -> Tensor:
    """What the prefixes of a response that p drew count towards KL(q* || p), ``(rows, time)``.

    The sum of token KLs is over prefixes as q* would reach them; one that p reaches counts
    ``R(prefix) / R(prompt)``. ``log_success`` ``(rows, time)`` is log R *before* each token, the prompt's
    first. Nothing counts more than ``max_weight``.
    """
    return (log_success - log_success[:, :1]).exp().clamp(max=max_weight)
