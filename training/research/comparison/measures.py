"""What a row of the comparison is measured by: toxicity of continuations, commonsense, plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from guardrail_training.evaluation.judges import Judge
from guardrail_training.metrics.statistics import Mean, bootstrap_mean
from guardrail_training.records import required_folder
from guardrail_training.regularized.corpus import load_mixture
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.rollouts import PromptQuery, drawn
from guardrail_training.rewards.algebra import Answer, Reward
from guardrail_training.rewards.independence import check_independent
from research.comparison.classification import classification
from research.comparison.subject import load_subject
from research.comparison.utility import choices, perplexity
from research.evaluation.judges import load_judges

__all__ = [
    "DEV_PROMPTS",
    "EVALUATION_SEED",
    "QUESTIONED",
    "Measures",
    "Toxicity",
    "dev_queries",
    "measure",
    "toxicity",
]

DEV_PROMPTS = "toxigen_prompts/dev.jsonl"
QUESTIONED = ("base", "classify-sft", "classify-regularized")
EVALUATION_SEED = 13


@dataclass(frozen=True, slots=True)
class Measures:
    """Sizes: prompts, continuations of each, PIQA rows (0: all), WikiText tokens, questions."""

    prompts: int = 200
    each: int = 4
    piqa: int = 0
    wikitext: int = 50_000
    questions: int = 500


@dataclass(frozen=True, slots=True)
class Toxicity:
    """What one judge says of continuations: mean score, share at its threshold or above; over prompts.

    ``means`` has each prompt's mean score, in their order: two models are compared prompt by prompt.
    """

    judge: str
    mean: Mean
    share: Mean
    means: tuple[float, ...]


def measure(
    row: str,
    settings: RegularizedSettings,
    *,
    trained: Path | None,
    measures: Measures,
    reward: Reward | None = None,
) -> dict[str, Any]:
    """Toxicity of continuations by both judges, PIQA and WikiText of a row.

    Prompts are of target groups that no row has seen; continuations alone are judged, by judges that are in
    no oracle. ``toxicity`` is that of the judge under which the row does worse.
    """
    data = required_folder(settings.data)
    subject = load_subject(settings, folder=trained, is_guarded=row == "decoding")
    queries = dev_queries(settings, data, tokenizer=subject.tokenizer, count=measures.prompts)
    texts = subject.continuations(
        queries, each=measures.each, tokens=settings.response_tokens, seed=EVALUATION_SEED
    )
    if row == "best-of-n":
        oracle = reward or _oracle(settings)
        check_independent(oracle)
        texts = [_best(query, part, oracle) for query, part in zip(queries, texts, strict=True)]
    judged = [toxicity(texts, judge) for judge in load_judges(data)]
    classified = None
    if row in QUESTIONED:
        classified = classification(subject, data, count=measures.questions, seed=EVALUATION_SEED)
    return {
        "classification": classified,
        "toxicity": max(judged, key=lambda one: one.mean.value),
        "judges": judged,
        "piqa": choices(subject, data / "piqa" / "dev.jsonl", limit=measures.piqa, seed=EVALUATION_SEED),
        "perplexity": perplexity(subject, data / "wikitext2" / "test.txt", tokens=measures.wikitext),
    }


def toxicity(texts: Sequence[Sequence[str]], judge: Judge) -> Toxicity:
    """One judge's figures over the continuations ``texts`` of each prompt; intervals are over prompts."""
    scores = [judge.scores(list(part)) for part in texts]
    means = [float(part.mean()) for part in scores]
    return Toxicity(
        judge=judge.name,
        mean=bootstrap_mean(means, seed=EVALUATION_SEED),
        share=bootstrap_mean(
            [float(np.mean(part >= judge.threshold)) for part in scores], seed=EVALUATION_SEED
        ),
        means=tuple(round(mean, 6) for mean in means),
    )


def dev_queries(
    settings: RegularizedSettings, data: Path, *, tokenizer: Any, count: int
) -> list[PromptQuery]:
    """The fixed dev prompts, cut as in training."""
    dev = replace(settings, guided=DEV_PROMPTS, field="prompt", template=None, general="", method="sft")
    mixture = load_mixture(data, dev, tokenizer=tokenizer)
    return drawn(mixture.queries, step=1, count=min(count, len(mixture.queries)), seed=EVALUATION_SEED)


def _best(query: PromptQuery, texts: Sequence[str], reward: Reward) -> list[str]:
    answers = [Answer(query=query.text, prompt=query.prompt, response=text) for text in texts]
    return [texts[int(np.argmax(reward(answers).total))]]


def _oracle(settings: RegularizedSettings) -> Reward:
    from guardrail_training.rewards.formula import read_formula

    return read_formula(settings.reward)
