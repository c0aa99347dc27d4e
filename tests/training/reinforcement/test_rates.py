"""Adam as PPO uses it, and the rates that its steps had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail_training.checkpoint import FILENAME
from guardrail_training.reinforcement import ppo
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import named
from tests.training.reinforcement.conftest import small_settings
from tests.training.watching import metrics

REWARD = named("brief", lambda answers: [1 / (1 + len(answer.response)) for answer in answers])


@pytest.fixture
def settings(llama_base: Path, tmp_path: Path) -> PpoSettings:
    """Four steps with different peaks for adapter and value head."""
    return small_settings(llama_base, tmp_path, learning_rate=2e-3, value_learning_rate=3e-2, epochs=1)


def groups(settings: PpoSettings) -> list[dict[str, Any]]:
    state = torch.load(Path(settings.out) / FILENAME, weights_only=True)
    found: list[dict[str, Any]] = state["optimizer"]["param_groups"]
    return found


def rates(settings: PpoSettings) -> list[float]:
    return [row["ppo/learning_rate"] for row in metrics(settings)]


def test_adapter_and_value_head_have_peaks_of_their_own_and_adam_an_epsilon_of_1e_5(
    settings: PpoSettings,
) -> None:
    ppo.run(replace(settings, warmup=0.5, steps=2), reward=REWARD)

    adapter, values = groups(settings)
    assert (adapter["peak"], values["peak"]) == (2e-3, 3e-2)
    assert (adapter["lr"], values["lr"]) == (2e-3, 3e-2)  # warm after one of two steps
    assert len(values["params"]) == 2  # weight and bias
    assert {group["eps"] for group in (adapter, values)} == {1e-5}
    assert {group["weight_decay"] for group in (adapter, values)} == {0.0}


def test_without_a_value_function_the_adapter_s_group_is_the_only_one(settings: PpoSettings) -> None:
    ppo.run(replace(settings, estimator="rloo", batch_size=4, samples_per_prompt=2, steps=1), reward=REWARD)

    assert [group["peak"] for group in groups(settings)] == [2e-3]


def test_without_decay_the_logged_rate_rises_and_stays(settings: PpoSettings) -> None:
    ppo.run(replace(settings, warmup=0.5, decays=False), reward=REWARD)

    assert rates(settings) == pytest.approx([1e-3, 2e-3, 2e-3, 2e-3])
    assert [group["lr"] for group in groups(settings)] == [2e-3, 3e-2]


def test_with_decay_the_logged_rate_rises_and_falls_in_both_groups_alike(settings: PpoSettings) -> None:
    ppo.run(replace(settings, warmup=0.5, steps=6), reward=REWARD)

    assert rates(settings) == pytest.approx([2e-3 * share for share in (1 / 3, 2 / 3, 1, 1, 0.75, 0.25)])
    assert [group["lr"] for group in groups(settings)] == pytest.approx([0.25 * 2e-3, 0.25 * 3e-2])
