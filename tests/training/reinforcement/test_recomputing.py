"""Layers whose states are computed again in the backward pass: the same gradients, in updates alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from guardrail_training import modeling
from guardrail_training.processes import Processes
from guardrail_training.reinforcement import ppo
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.ppo import assess, update
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import named
from tests.training.reinforcement.conftest import load_learner
from tests.training.reinforcement.test_updates import rollout_of
from tests.training.watching import metrics

REWARD = named("brief", lambda answers: [1 / (1 + len(answer.response)) for answer in answers])


def counted(learner: Learner) -> list[int]:
    """One entry for each layer that is going to be computed again, as time goes on."""
    calls: list[int] = []
    original: Any = torch.utils.checkpoint.checkpoint

    def checkpoint(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        return original(*arguments, use_reentrant=False, **options)

    for layer in learner.model.modules():
        if hasattr(layer, "_gradient_checkpointing_func"):
            layer._gradient_checkpointing_func = checkpoint
    return calls


def gradient_of(learner: Learner, settings: PpoSettings) -> list[Tensor]:
    """Where plain gradient descent goes from the learner's own rollout."""
    rollout = rollout_of(learner, settings)
    experience = assess(rollout, settings=settings, coefficient=0.2)
    before = [parameter.detach().clone() for parameter in modeling.trainable_parameters(learner)]
    optimizer = torch.optim.SGD(modeling.trainable_parameters(learner), lr=1.0)
    update(learner, optimizer, rollout, experience, settings=settings, step=1, processes=Processes())
    after = modeling.trainable_parameters(learner)
    return [old - new.detach() for old, new in zip(before, after, strict=True)]


@pytest.mark.parametrize("samples", [1, 4])
def test_recomputed_layers_give_the_gradients_of_kept_ones(settings: PpoSettings, samples: int) -> None:
    # Several responses share their prompt's states, unless layers are to compute them again.
    one_step = replace(
        settings, batch_size=8 // samples, samples_per_prompt=samples, minibatch_size=8, epochs=1
    )
    kept, recomputed = (
        load_learner(Path(settings.base), stirred=True, temperature=1.0, recomputes=recomputes)
        for recomputes in (False, True)
    )
    calls = counted(recomputed)

    expected = gradient_of(kept, one_step)
    found = gradient_of(recomputed, one_step)

    assert calls
    assert sum(gradient.abs().sum() for gradient in expected) > 0
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


def test_sampling_and_scoring_recompute_nothing_and_the_policy_is_left_as_it_was(
    settings: PpoSettings,
) -> None:
    learner = load_learner(Path(settings.base), stirred=True, temperature=1.0, recomputes=True)
    calls = counted(learner)

    rollout_of(learner, settings)
    assert not calls

    gradient_of(learner, replace(settings, epochs=1))
    assert calls
    assert not any(module.training for module in learner.modules())


def test_a_run_logs_the_same_and_may_be_continued_either_way(settings: PpoSettings, tmp_path: Path) -> None:
    kept = replace(settings, out=str(tmp_path / "kept"), steps=2)
    recomputed = replace(kept, out=str(tmp_path / "recomputed"), gradient_checkpointing=True)

    for each in (kept, recomputed):
        ppo.run(each, reward=REWARD)

    for one, other in zip(metrics(kept), metrics(recomputed), strict=True):
        assert other == pytest.approx(one, abs=1e-3, rel=1e-3)
    assert ppo.run(replace(recomputed, gradient_checkpointing=False), reward=REWARD).finished
