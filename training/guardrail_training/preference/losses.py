"""Losses over pairs of responses as pure functions of log-probabilities in nats, all float32 ``(pairs,)``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["dpo_losses", "implicit_rewards", "log_odds", "orpo_losses"]

SUREST = -1e-6
"""The highest mean log-probability that odds are taken of: at 0 they are infinite."""


def implicit_rewards(logprobs: Tensor, reference: Tensor, *, beta: float) -> Tensor:
    """``beta * log(policy / reference)``: the reward that the policy is the optimum of, up to the prompt.

    Both are sums over the tokens of a response. Rafailov et al. 2023, arXiv 2305.18290, equation 5.
    """
    return beta * (logprobs - reference)


def dpo_losses(
    chosen: Tensor, rejected: Tensor, *, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Tensor:
    """``-log sigmoid(implicit reward of the chosen - that of the rejected)``: log 2 where nothing has moved.

    All four are sums over the tokens of a response. Rafailov et al. 2023, arXiv 2305.18290, equation 7.
    """
    return -functional.logsigmoid(
        implicit_rewards(chosen, reference_chosen, beta=beta)
        - implicit_rewards(rejected, reference_rejected, beta=beta)
    )


def log_odds(mean_logprobs: Tensor) -> Tensor:
    """``log(p / (1 - p))`` with ``log p`` the mean log-probability per token of a response.

    Hong et al. 2024, arXiv 2403.07691, equation 4.
    """
    surest = mean_logprobs.clamp(max=SUREST)
    return surest - torch.log(-torch.expm1(surest))


def orpo_losses(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """``-log p(chosen) - beta * log sigmoid(log odds of the chosen - log odds of the rejected)``.

    Both are means over the tokens of a response, so each pair counts the same whatever its length.
    Hong et al. 2024, arXiv 2403.07691, equations 6 and 7; ``beta`` is their lambda.
    """
    return -chosen - beta * functional.logsigmoid(log_odds(chosen) - log_odds(rejected))
