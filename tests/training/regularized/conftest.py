"""A tiny language model with samples of it, and an oracle that dislikes one letter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guardrail_training.regularized.samples import LabelledSamples, collect
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.rollouts import PromptQuery
from guardrail_training.rewards.algebra import Answer, named
from tests.training.nado.conftest import learner  # noqa: F401  # fixtures are shared by importing them
from tests.training.reinforcement.conftest import (  # noqa: F401
    WORDS,
    _one_thread,
    llama_base,
    word_tokenizer,
)


def spotless(answers: Sequence[Answer]) -> list[float]:
    """1 without any word of the letter d, else 0."""
    return [float("d" not in answer.response) for answer in answers]


ORACLE = named("spotless", spotless)


def small_settings(base: Path, folder: Path, **changes: Any) -> RegularizedSettings:
    """Settings for the tiny model; what lies in ``folder`` is not written here."""
    chosen: dict[str, Any] = {
        "base": str(base),
        "out": str(folder / "run"),
        "data": str(folder),
        "guided": "lists.jsonl",
        "field": "text",
        "general": "plain.txt",
        "window": 8,
        "context": 3,
        "iterations": 2,
        "steps": 3,
        "batch_size": 4,
        "reward": "spotless",
        "prompts": 4,
        "first_prompts": 10,
        "samples_per_prompt": 4,
        "response_tokens": 4,
        "candidates": 40,
        "auxiliary_hidden": 32,
        "auxiliary_rank": 8,
        "auxiliary_steps": 5,
        "first_auxiliary_steps": 40,
        "min_auc": 0.0,
        "learning_rate": 1e-2,
        "auxiliary_learning_rate": 1e-2,
        "rank": 4,
        "alpha": 8,
        "dtype": "float32",
        "keep_every": 1,
        "keep_models": 0,
    }
    return RegularizedSettings(**(chosen | changes))


@pytest.fixture
def settings(llama_base: Path, tmp_path: Path) -> RegularizedSettings:  # noqa: F811  # a fixture
    return small_settings(llama_base, tmp_path)


def queries(count: int = 12) -> list[PromptQuery]:
    tokenizer = word_tokenizer()
    texts = [
        " ".join(WORDS[(5 * row + word) % len(WORDS)] for word in range(1 + row % 3)) for row in range(count)
    ]
    return [PromptQuery(text=text, prompt=text, ids=tuple(tokenizer.encode(text))) for text in texts]


def samples_of(
    model: Learner,
    settings: RegularizedSettings,  # not the fixture
    *,
    iteration: int = 0,
) -> LabelledSamples:
    """Responses to twelve prompts."""
    return collect(
        model,
        queries(),
        reward=ORACLE,
        tokenizer=word_tokenizer(),
        settings=settings,
        iteration=iteration,
    )
