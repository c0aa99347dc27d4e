"""The loss of a batch by either method, and its figures under the names that users of trl know."""

from __future__ import annotations

from torch import Tensor

from guardrail_training.preference.losses import dpo_losses, implicit_rewards, log_odds, orpo_losses
from guardrail_training.preference.pairs import PairLogprobs

__all__ = ["dpo_objective", "orpo_objective"]


def dpo_objective(
    policy: PairLogprobs,
    *,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    beta: float,
    nll_weight: float,
) -> tuple[Tensor, dict[str, float]]:
    """The mean DPO loss plus ``nll_weight`` times the chosen's mean negative log-likelihood, and figures.

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
    figures = {"nll_loss": nll.item()} | _figures(
        implicit_rewards(policy.chosen, reference_chosen, beta=beta),
        implicit_rewards(policy.rejected, reference_rejected, beta=beta),
        logprobs=(policy.chosen, policy.rejected),
    )
    # Without a weight the term stays out of the graph, and one that is not finite out of the loss.
    return (losses.mean() + nll_weight * nll if nll_weight else losses.mean()), figures


def orpo_objective(policy: PairLogprobs, *, beta: float) -> tuple[Tensor, dict[str, float]]:
    """The mean ORPO loss and figures; ``logps/...`` and rewards are means over a response's tokens."""
    chosen, rejected = policy.mean_chosen, policy.mean_rejected
    figures = {
        "nll_loss": -chosen.mean().item(),
        "log_odds_chosen": (log_odds(chosen) - log_odds(rejected)).mean().item(),
    } | _figures(beta * chosen, beta * rejected, logprobs=(chosen, rejected))
    return orpo_losses(chosen, rejected, beta=beta).mean(), figures


def _figures(chosen: Tensor, rejected: Tensor, *, logprobs: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Means over the pairs; a pair whose rewards are equal is not told right."""
    return {
        "rewards/chosen": chosen.mean().item(),
        "rewards/rejected": rejected.mean().item(),
        "rewards/margins": (chosen - rejected).mean().item(),
        "rewards/accuracies": (chosen > rejected).float().mean().item(),
        "logps/chosen": logprobs[0].mean().item(),
        "logps/rejected": logprobs[1].mean().item(),
    }
