"""A comparison as Markdown: models, changes, and every sample by its numbers.

No text of the data or of a model stands in it, so that it can be kept where these may not be; they are in
``samples.jsonl``, and on the page of ``guardrail-train report``.
"""

from __future__ import annotations

from collections.abc import Sequence

from guardrail_training.evaluation.generation.comparison import GenerationComparison, GenerationSystem
from guardrail_training.evaluation.generation.measures import RelativeChange
from guardrail_training.evaluation.generation.samples import Sample
from guardrail_training.evaluation.tables import table
from guardrail_training.metrics.statistics import Mean

__all__ = ["comparison_tables"]


def comparison_tables(comparison: GenerationComparison, samples: Sequence[Sample]) -> str:
    """The figures with 95 % bootstrap intervals over prompts, then the samples, greatest gain first."""
    changes = [
        [f"toxicity, {judge}", _percent(change.mean), _percent(change.std)]
        for judge, change in comparison.changes.items()
    ]
    asked = f"{comparison.systems[0].n} prompts, seed {comparison.seed}"
    return "\n".join(
        [
            f"### Models\n\n{asked}; reward: `{comparison.reward}`\n",
            _models(comparison.systems),
            f"### Change from {comparison.before} to {comparison.after}\n",
            table(["measure", "mean", "standard deviation"], changes),
            "### Samples, greatest gain in reward first\n",
            _samples(comparison, samples, judge=comparison.counted or next(iter(comparison.changes))),
        ]
    )


def _models(systems: Sequence[GenerationSystem]) -> str:
    first = systems[0]
    header = ["model", "reward", *(f"toxicity, {judge}, mean / std" for judge in first.toxicity)]
    header += [*(name.replace("rouge", "ROUGE-") for name in first.rouge), "tokens", "ended"]
    rows = [
        [
            system.title,
            _interval(system.reward.mean),
            *(f"{_interval(figure.mean)} / {figure.std:.3f}" for figure in system.toxicity.values()),
            *(_interval(mean) for mean in system.rouge.values()),
            f"{system.tokens.mean.value:.1f}",
            system.ended,
        ]
        for system in systems
    ]
    return table(header, rows)


def _samples(comparison: GenerationComparison, samples: Sequence[Sample], *, judge: str) -> str:
    pair = comparison.pair
    rows = []
    for sample in sorted(samples, key=lambda sample: sample.gain(*pair), reverse=True):
        before, after = (sample.outputs[name] for name in pair)
        rewards = [before.reward, after.reward, f"{sample.gain(*pair):+.3f}"]
        rows.append([str(sample.row), *rewards, before.toxicity[judge], after.toxicity[judge]])
    names = ["row", "reward before", "after", "difference", f"toxicity, {judge}, before", "after"]
    return table(names, rows)


def _interval(mean: Mean) -> str:
    return f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]"


def _percent(change: RelativeChange) -> str | None:
    if change.value is None or change.low is None or change.high is None:
        return None
    return f"{100 * change.value:+.0f} % [{100 * change.low:+.0f}, {100 * change.high:+.0f}]"
