"""Which logged figures stand together in one chart, and what a reader is told about them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["CHARTS", "Chart", "charts_of"]


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart over the steps of a run.

    ``names`` are figures or patterns of them. ``spreads`` pairs a figure with what is drawn on both sides of
    it; ``level`` names a setting that is drawn as a line.
    """

    title: str
    unit: str
    names: tuple[str, ...]
    says: str
    spreads: tuple[tuple[str, str], ...] = ()
    level: str | None = None


CHARTS = (
    Chart(
        "Loss",
        "nats per token",
        ("loss", "dev_loss"),
        "loss of every batch.",
        spreads=(("dev_loss", "dev_loss_error"),),
    ),
    Chart(
        "Reward",
        "score",
        ("ppo/mean_scores",),
        "Mean score of a step's responses without any penalty; the band is one standard deviation.",
        spreads=(("ppo/mean_scores", "ppo/std_scores"),),
    ),
    Chart("Terms of the reward", "mean", ("reward/*",), "What the reward is made of."),
    Chart(
        "Rewards of preferred and rejected answers",
        "reward",
        ("rewards/chosen", "rewards/rejected"),
        "The policy's implicit rewards of both sides of the pairs.",
    ),
    Chart("Preference margin", "reward", ("rewards/margins",), "Preferred minus rejected."),
    Chart("Preference accuracy", "share", ("rewards/accuracies",), "Pairs with a positive margin."),
    Chart(
        "KL divergence",
        "nats per response",
        ("objective/kl",),
        "How far the policy is from its reference; the line is what KL control steers to.",
        level="kl_target",
    ),
    Chart("KL coefficient", "coefficient", ("objective/kl_coef",), "The price of a nat of divergence."),
    Chart(
        "Returns and values",
        "return per token",
        ("ppo/returns/mean", "ppo/val/mean"),
        "What the tokens earned, and what the value function said before.",
    ),
    Chart(
        "Advantages",
        "mean",
        ("ppo/policy/advantages_mean",),
        "After whitening: 0 but for rounding where PPO runs as it should.",
    ),
    Chart(
        "Losses of policy and value function",
        "loss",
        ("ppo/loss/policy", "ppo/loss/value"),
        "Means over the updates of a step.",
    ),
    Chart("Entropy", "nats per token", ("ppo/policy/entropy",), "Falls to 0 if the policy collapses."),
    Chart(
        "Length of responses",
        "tokens",
        ("tokens/responses_len_mean",),
        "Mean of a step; the band is one standard deviation.",
        spreads=(("tokens/responses_len_mean", "tokens/responses_len_std"),),
    ),
    Chart("Responses that ended", "share", ("objective/ended",), "The others met the limit of tokens."),
    Chart("Learning rate", "rate", ("lr", "ppo/learning_rate"), "What the optimizer used."),
    Chart("Gradient norm", "norm", ("grad_norm", "ppo/grad_norm"), "Before clipping."),
    Chart("Time of a step", "seconds", ("seconds", "time/*"), "By the clock."),
)
"""In the order of the page."""


def charts_of(logged: Iterable[str]) -> tuple[list[Chart], list[Chart]]:
    """The charts above with the figures that were logged, then one for every figure that they leave out."""
    names = list(logged)
    known, shown = [], set[str]()
    for chart in CHARTS:
        found = tuple(name for name in names if any(fnmatch.fnmatchcase(name, each) for each in chart.names))
        if found:
            known.append(replace(chart, names=found))
            shown |= {*found, *(spread for of, spread in chart.spreads if of in found)}
    return known, [Chart(name, "", (name,), "") for name in names if name not in shown]
