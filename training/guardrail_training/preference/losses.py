"""Losses over pairs of responses, and their metrics under the names that users of trl know.

Pure functions of log-probabilities in nats, all float32 ``(pairs,)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "PairLogprobs",
    "dpo_losses",
    "dpo_objective",
    "implicit_rewards",
    "log_odds",
    "orpo_losses",
    "orpo_objective",
]

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
    """``-log sigmoid(implicit reward of the chosen - that of the rejected)``: log 2 if nothing has moved.

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


def dpo_objective(
    policy: PairLogprobs,
    *,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    nll_weight: float,
) -> tuple[Tensor, dict[str, float]]:
    """The mean DPO loss plus ``nll_weight`` times the chosen's mean negative log-likelihood, and metrics.

    The likelihood is per token, as in Pang et al. 2024, arXiv 2404.19733, equation 2. ``logps/...`` are sums
    over a response's tokens.
    """
    losses = dpo_losses(
        policy.chosen,
        policy.rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
        beta=beta,
    )
    nll = -policy.mean_chosen.mean()
    metrics = {"nll_loss": nll.item()} | _metrics(
        implicit_rewards(policy.chosen, reference_chosen, beta=beta),
        implicit_rewards(policy.rejected, reference_rejected, beta=beta),
        logprobs=(policy.chosen, policy.rejected),
    )
    # Without a weight the term stays out of the graph, and one that is not finite out of the loss.
    return (losses.mean() + nll_weight * nll if nll_weight else losses.mean()), metrics


def orpo_objective(policy: PairLogprobs, *, beta: float) -> tuple[Tensor, dict[str, float]]:
    """The mean ORPO loss and metrics; ``logps/...`` and rewards are means over a response's tokens."""
    chosen, rejected = policy.mean_chosen, policy.mean_rejected
    metrics = {
        "nll_loss": -chosen.mean().item(),
        "log_odds_chosen": (log_odds(chosen) - log_odds(rejected)).mean().item(),
    } | _metrics(beta * chosen, beta * rejected, logprobs=(chosen, rejected))
    return orpo_losses(chosen, rejected, beta=beta).mean(), metrics


def _metrics(chosen: Tensor, rejected: Tensor, *, logprobs: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Means over the pairs; a pair whose rewards are equal is not told right."""
    return {
        "rewards/chosen": chosen.mean().item(),
        "rewards/rejected": rejected.mean().item(),
        "rewards/margins": (chosen - rejected).mean().item(),
        "rewards/accuracies": (chosen > rejected).float().mean().item(),
        "logps/chosen": logprobs[0].mean().item(),
        "logps/rejected": logprobs[1].mean().item(),
    }
