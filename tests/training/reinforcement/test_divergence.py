"""Runs that cannot continue: what they say, and the adapter that they leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import PluginError
from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training.processes import Processes
from guardrail_training.reinforcement import ppo
from guardrail_training.reinforcement.rollouts import PromptQuery, collect
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Answer, Reward, named
from guardrail_training.run import DivergedError
from tests.training.reinforcement.conftest import load_learner, word_tokenizer
from tests.training.watching import metrics


def lengths(answers: Sequence[Answer]) -> list[float]:
    return [len(answer.response.split()) / 6 for answer in answers]


REWARD = named("lengths", lengths)


def failing(*, at: int, value: float) -> Reward:
    """A reward of which the numbers are wrong from its ``at``-th call on."""
    calls: list[int] = []

    def score(answers: Sequence[Answer]) -> list[float]:
        calls.append(len(answers))
        return [value] * len(answers) if len(calls) >= at else lengths(answers)

    return named("lengths", score)


def test_a_policy_that_leaves_its_reference_stops_the_run_and_the_last_good_adapter_stays(
    settings: PpoSettings,
) -> None:
    wild = replace(settings, learning_rate=1.0, divergence_kl=0.5, target_kl=0.0, warmup=0.0)

    with pytest.raises(DivergedError, match=r"objective/kl is .* beyond divergence_kl = 0\.5.*last-good"):
        ppo.run(wild, reward=REWARD)

    manifest = Manifest.load(Path(wild.out) / "last-good")
    assert manifest.metrics["step"] == len(metrics(wild)) - 1
    read_adapter(Path(wild.out) / "last-good")


def test_an_update_that_fails_stops_the_run_and_the_policy_before_it_stays(
    settings: PpoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = ppo.update

    def broken(*arguments: Any, step: int, **options: Any) -> Any:
        figures = update(*arguments, step=step, **options)
        if step == 3:
            raise DivergedError("the gradient is not finite")
        return figures

    monkeypatch.setattr(ppo, "update", broken)
    with pytest.raises(DivergedError, match=r"step 3: .*not finite.*last-good; lower learning_rate"):
        ppo.run(settings, reward=REWARD)

    kept = Path(settings.out) / "last-good" / "adapter_model.safetensors"
    assert Manifest.load(kept.parent).metrics["step"] == 2
    assert sha256_of(kept) == sha256_of(Path(settings.out) / "step-2" / kept.name)


def test_figures_that_are_no_numbers_stop_the_run(
    settings: PpoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assess = ppo.assess

    def broken(*arguments: Any, **options: Any) -> Any:
        found = assess(*arguments, **options)
        return replace(found, advantages=found.advantages * float("nan"))

    monkeypatch.setattr(ppo, "assess", broken)
    with pytest.raises(DivergedError, match=r"step 1: non-finite metrics: ppo/policy/advantages_mean"):
        ppo.run(settings, reward=REWARD)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_stops_the_run_and_the_last_good_adapter_stays(
    settings: PpoSettings, value: float
) -> None:
    with pytest.raises(PluginError, match=r"step 4: reward 'lengths' .* not finite .*last-good; correct"):
        ppo.run(replace(settings, checkpoint_every=3), reward=failing(at=4, value=value))

    kept = Path(settings.out) / "last-good" / "adapter_model.safetensors"
    # Step 3 measured the policy of step 2; nothing has measured that of step 3.
    assert Manifest.load(kept.parent).metrics["step"] == 2 == len(metrics(settings)) - 1
    assert sha256_of(kept) == sha256_of(Path(settings.out) / "step-2" / kept.name)
    assert ppo.run(replace(settings, checkpoint_every=3), reward=REWARD).finished


def test_a_reward_that_fails_in_another_process_ends_this_one_too(settings: PpoSettings) -> None:
    class Beside(Processes):
        """The view of a process beside which another one fails."""

        def any(self, flag: bool, /) -> bool:
            return True

    with pytest.raises(PluginError, match="the reward failed in another process"):
        collect(
            load_learner(Path(settings.base)),
            [PromptQuery(text="a1", prompt="a0 a1", ids=(3, 4))],
            reward=REWARD,
            tokenizer=word_tokenizer(),
            settings=settings,
            step=1,
            processes=Beside(),
        )
