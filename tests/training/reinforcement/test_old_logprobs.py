"""Old log-probabilities and values from sampling in place of another pass."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail_training import modeling
from guardrail_training import run as skeleton
from guardrail_training.processes import Processes
from guardrail_training.reinforcement import ppo, rollouts
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.ppo import assess, update
from guardrail_training.reinforcement.rollouts import PromptQuery, Rollout, collect
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import named
from tests.training.reinforcement.conftest import layers_of, load_learner, small_settings
from tests.training.watching import assert_same_run, interrupting

IDS = [(5, 6, 7, 8), (10, 11), (12, 13, 14), (15,), (5, 6), (9, 9, 9, 9, 9), (20,), (21, 22)]
REWARD = named("length", lambda answers: [len(answer.response) / 10 for answer in answers])


def collected(learner: Learner, settings: PpoSettings, *, way: str) -> Rollout:
    return collect(
        learner,
        [PromptQuery(text="", prompt="", ids=ids) for ids in IDS],
        reward=REWARD,
        tokenizer=modeling.load_tokenizer(settings.base),
        settings=replace(settings, old_logprobs=way),
        step=1,
        processes=Processes(),
    )


def both(learner: Learner, settings: PpoSettings) -> tuple[Rollout, Rollout]:
    return collected(learner, settings, way="read"), collected(learner, settings, way="sampled")


@pytest.fixture
def learner(base: Path) -> Learner:
    return load_learner(base, stirred=True, temperature=1.0)


def test_by_default_old_log_probabilities_are_read_again(settings: PpoSettings) -> None:
    assert settings.old_logprobs == "read"


@pytest.mark.parametrize("shortest", [0, 3])
def test_sampling_says_of_its_tokens_what_another_pass_says(
    learner: Learner, settings: PpoSettings, shortest: int
) -> None:
    read, sampled = both(learner, replace(settings, min_response_tokens=shortest))

    mask = read.responses.mask
    assert torch.equal(sampled.responses.ids, read.responses.ids)
    assert sampled.gap is not None
    assert sampled.gap < 1e-5
    assert read.gap is None
    for name in ("logprobs", "values", "entropies"):
        found, expected = getattr(sampled.policy, name), getattr(read.policy, name)
        assert bool(expected[mask].any())
        assert not found[~mask].any()
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(sampled.reference, read.reference)


def test_an_update_goes_the_same_way_from_either(base: Path, settings: PpoSettings) -> None:
    ways = {}
    for way in ("read", "sampled"):
        learner = load_learner(base, stirred=True, temperature=1.0)
        rollout = collected(learner, settings, way=way)
        experience = assess(rollout, settings=settings, coefficient=0.2)
        optimizer = torch.optim.SGD(modeling.trainable_parameters(learner), lr=1e-2)
        moved = update(
            learner, optimizer, rollout, experience, settings=settings, step=1, processes=Processes()
        )
        ways[way] = moved.metrics, [p.detach().clone() for p in modeling.trainable_parameters(learner)]

    assert ways["sampled"][0] == pytest.approx(ways["read"][0], abs=1e-4, rel=1e-4)
    torch.testing.assert_close(ways["sampled"][1], ways["read"][1], atol=1e-5, rtol=1e-4)


def test_the_policy_reads_one_response_alone(
    learner: Learner, settings: PpoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    read = learner.read

    def counted(prompts: Any, *more: Any, **options: Any) -> Any:
        rows.append(len(prompts))
        return read(prompts, *more, **options)

    monkeypatch.setattr(learner, "read", counted)
    collected(learner, settings, way="sampled")

    assert rows == [1]


def test_a_ratio_that_is_off_has_all_responses_read(base: Path, settings: PpoSettings) -> None:
    at_another_temperature = load_learner(base, stirred=True, temperature=0.7)

    read, sampled = both(at_another_temperature, settings)

    assert sampled.gap is not None
    assert sampled.gap > rollouts.MAX_GAP
    assert torch.equal(sampled.policy.logprobs, read.policy.logprobs)


def test_in_bfloat16_what_is_off_by_rounding_is_read_again_and_values_stay_float32(
    base: Path, tmp_path: Path
) -> None:
    settings = small_settings(base, tmp_path, dtype="bfloat16")
    model = modeling.add_lora(
        modeling.load_base(base, dtype=torch.bfloat16), rank=4, alpha=8, dropout=0.0, targets=layers_of(base)
    )
    learner = Learner(model, pad_id=0, temperature=1.0, dtype=torch.bfloat16, has_values=True)

    read, sampled = both(learner, settings)

    assert sampled.gap is not None
    assert sampled.policy.values is not None
    assert sampled.policy.values.dtype == torch.float32
    if sampled.gap > rollouts.MAX_GAP:
        assert torch.equal(sampled.policy.logprobs, read.policy.logprobs)
    else:
        torch.testing.assert_close(sampled.policy.logprobs, read.policy.logprobs, atol=2e-2, rtol=0)


def test_a_run_on_sampled_log_probabilities_continues_to_the_bit(
    settings: PpoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(settings, old_logprobs="sampled", steps=3, checkpoint_every=1)
    broken = replace(whole, out=str(tmp_path / "broken"))

    ppo.run(whole, reward=REWARD)
    with interrupting(skeleton, monkeypatch, at=1, act=lambda: signal.raise_signal(signal.SIGINT)):
        ppo.run(broken, reward=REWARD)
    ppo.run(broken, reward=REWARD)

    assert_same_run(whole, broken)
