"""What a step logs, under the names that users of trl's PPOTrainer know."""

from __future__ import annotations

from guardrail_training.reinforcement.advantages import masked_mean, masked_variance, token_kl
from guardrail_training.reinforcement.rollouts import Experience, Rollout

__all__ = ["rollout_figures"]


def rollout_figures(rollout: Rollout, experience: Experience, *, coefficient: float) -> dict[str, float]:
    """Figures of a rollout before the policy moves, under the KL coefficient that it was assessed with.

    ``objective/kl``, ``objective/entropy`` are nats per response, sums over its tokens of sampled log ratios
    and negative log-probabilities; ``ppo/policy/entropy`` is nats per token, over the whole vocabulary.
    Scores and ``reward/...`` are those of the reward, without any penalty.
    """
    responses, policy, mask = rollout.responses, rollout.policy, rollout.responses.mask
    scores, lengths = rollout.scored.total, responses.lengths.float()
    log_ratio = token_kl(policy.logprobs, rollout.reference, estimator="k1")
    figures = {
        "objective/kl": (log_ratio * mask).sum(dim=1).mean().item(),
        "objective/kl_coef": coefficient,
        "objective/entropy": (-policy.logprobs * mask).sum(dim=1).mean().item(),
        "objective/ended": responses.ended.float().mean().item(),
        "ppo/mean_scores": float(scores.mean()),
        "ppo/std_scores": float(scores.std()),
        "ppo/mean_non_score_reward": -coefficient * masked_mean(experience.kl, mask).item(),
        "ppo/mean_rewards": experience.rewards.sum(dim=1).mean().item(),
        "ppo/policy/advantages_mean": masked_mean(experience.advantages, mask).item(),
        "tokens/queries_len_mean": rollout.prompts.mask.sum(dim=1).float().mean().item(),
        "tokens/responses_len_mean": lengths.mean().item(),
        "tokens/responses_len_std": lengths.std(correction=0).item(),
    }
    figures |= {f"reward/{name}": float(values.mean()) for name, values in rollout.scored.terms.items()}
    if policy.entropies is not None:
        figures["ppo/policy/entropy"] = masked_mean(policy.entropies, mask).item()
    if policy.values is not None and experience.returns is not None:
        variance = masked_variance(experience.returns, mask)
        unexplained = masked_variance(experience.returns - policy.values, mask)
        figures |= {
            "ppo/returns/mean": masked_mean(experience.returns, mask).item(),
            "ppo/returns/var": variance.item(),
            "ppo/val/mean": masked_mean(policy.values, mask).item(),
            "ppo/val/var": masked_variance(policy.values, mask).item(),
            "ppo/val/var_explained": (1 - unexplained / (variance + 1e-8)).item(),
        }
    return figures
