"""The filtering baseline: a corpus without what the oracle rejects."""

from __future__ import annotations

from dataclasses import replace

from guardrail.errors import ConfigError
from guardrail_training.regularized.corpus import Mixture
from guardrail_training.regularized.samples import opinions
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.rewards.algebra import Answer, Reward

__all__ = ["keep_successes"]


def keep_successes(mixture: Mixture, reward: Reward, *, settings: RegularizedSettings) -> Mixture:
    """The mixture with only those guided texts that the oracle calls a success."""
    answers = [Answer(query="", prompt="", response=passage.text) for passage in mixture.guided]
    labels = opinions(reward, answers, settings=settings)
    kept = tuple(
        passage
        for passage, label in zip(mixture.guided, labels.tolist(), strict=True)
        if label >= settings.success_from
    )
    if not kept:
        raise ConfigError("filtering leaves no guided text: lower success_from or choose another reward")
    return replace(mixture, guided=kept)
