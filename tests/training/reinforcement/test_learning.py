"""The proof by learning: from chance to nine tenths of a reward that no model was trained for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail_training.reinforcement import ppo
from guardrail_training.rewards.algebra import Answer, named
from tests.training.reinforcement.conftest import WORDS, small_settings

LAST = 5
FAST: dict[str, Any] = {
    "steps": 40,
    "batch_size": 32,
    "minibatch_size": 32,
    "microbatch_size": 32,
    "epochs": 4,
    "learning_rate": 3e-3,
    "value_learning_rate": 1e-2,
    "warmup": 0.0,
    "decays": False,
    "kl_control": "fixed",
    "kl_coefficient": 0.01,
    "target_kl": 0.5,
    "missing_eos_penalty": 0.0,
    "temperature": 0.5,
    "checkpoint_every": 100,
    "keep_every": 100,
}


def share(answers: Sequence[Answer]) -> list[float]:
    """The share of words from a quarter of the vocabulary."""
    return [
        sum(word in WORDS[:8] for word in answer.response.split()) / max(1, len(answer.response.split()))
        for answer in answers
    ]


def first_word(answers: Sequence[Answer]) -> list[float]:
    """1 where the first word is of that quarter, whatever follows it."""
    return [float(answer.response.split(" ")[0] in WORDS[:8]) for answer in answers]


def scores(base: Path, folder: Path, **changes: Any) -> list[float]:
    score = changes.pop("score", share)
    settings = small_settings(base, folder, **(FAST | changes))
    ppo.run(settings, reward=named("synthetic", score))
    lines = (Path(settings.out) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["ppo/mean_scores"] for line in lines]


def assert_learned(found: list[float]) -> None:
    assert found[0] < 0.5  # a quarter is chance; a random model has its preferences
    assert sum(found[-LAST:]) / LAST >= 0.9


@pytest.mark.slow
def test_ppo_learns_a_reward_of_the_whole_response(base: Path, tmp_path: Path) -> None:
    assert torch.get_num_threads() == 1

    assert_learned(scores(base, tmp_path))


@pytest.mark.slow
def test_ppo_learns_a_reward_of_the_first_token_alone(base: Path, tmp_path: Path) -> None:
    assert_learned(scores(base, tmp_path, score=first_word, response_tokens=1))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_the_siblings_learn_it_too(base: Path, tmp_path: Path, estimator: str) -> None:
    assert_learned(scores(base, tmp_path, estimator=estimator, batch_size=8, samples_per_prompt=4))
