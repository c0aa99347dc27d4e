from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guardrail.manifest import Template
from guardrail_training import modeling
from guardrail_training.processes import Processes
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.ppo import Experience, assess, minibatches, rollout_metrics, update
from guardrail_training.reinforcement.rollouts import (
    Rollout,
    chunks_by_length,
    collect,
    drawn,
    load_queries,
)
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Answer, named
from guardrail_training.run import DivergedError
from tests.training.reinforcement.conftest import load_learner

ALONE = Processes()


def words(answers: Sequence[Answer]) -> list[float]:
    return [len(set(answer.response.split())) / 4 for answer in answers]


def rollout_of(learner: Learner, settings: PpoSettings) -> Rollout:
    tokenizer = modeling.load_tokenizer(settings.base)
    queries = load_queries(
        Path(settings.data or "") / settings.prompts,
        field=settings.field,
        template=Template(settings.template or ""),
        tokenizer=tokenizer,
        min_characters=1,
        max_characters=4000,
        max_tokens=512,
    )
    return collect(
        learner,
        drawn(queries, step=1, count=settings.batch_size, seed=0),
        reward=named("words", words),
        tokenizer=tokenizer,
        settings=settings,
        step=1,
        processes=ALONE,
    )


def experience_of(
    settings: PpoSettings, *, stirred: bool = False
) -> tuple[Learner, Rollout, Experience, torch.optim.Optimizer]:
    learner = load_learner(
        Path(settings.base), has_values=settings.estimator == "ppo", stirred=stirred, temperature=1.0
    )
    rollout = rollout_of(learner, settings)
    experience = assess(rollout, settings=settings, coefficient=0.2)
    optimizer = torch.optim.SGD(modeling.trainable_parameters(learner), lr=1e-2)
    return learner, rollout, experience, optimizer


def weights(learner: Learner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in modeling.trainable_parameters(learner)]


def test_before_the_first_update_kl_is_0_and_the_whitened_advantages_have_mean_0(
    settings: PpoSettings,
) -> None:
    _, rollout, experience, _ = experience_of(settings)

    metrics = rollout_metrics(rollout, experience, coefficient=0.2)

    assert metrics["objective/kl"] == 0
    assert abs(metrics["ppo/policy/advantages_mean"]) < 1e-6
    assert metrics["ppo/returns/mean"] != 0
    assert not experience.kl.any()


def test_in_the_first_minibatch_the_ratio_is_1_and_nothing_is_clipped(settings: PpoSettings) -> None:
    one_batch = replace(settings, minibatch_size=8, epochs=1)
    learner, rollout, experience, optimizer = experience_of(one_batch, stirred=True)

    moved = update(learner, optimizer, rollout, experience, settings=one_batch, step=1, processes=ALONE)

    assert moved.metrics["ppo/policy/ratio"] == pytest.approx(1, abs=1e-5)
    assert moved.metrics["ppo/policy/approxkl"] < 1e-10
    assert moved.metrics["ppo/policy/clipfrac"] == 0
    assert moved.metrics["ppo/val/clipfrac"] == 0
    assert (moved.taken, moved.planned) == (1, 1)


def test_the_penalty_of_a_policy_that_has_moved_is_its_log_ratio_to_the_reference(
    settings: PpoSettings,
) -> None:
    _, rollout, experience, _ = experience_of(settings, stirred=True)
    mask, ended = rollout.responses.mask, rollout.responses.ended

    log_ratio = (rollout.policy.logprobs - rollout.reference) * mask
    scores = torch.from_numpy(rollout.scored.total) - 1.0 * ~ended

    torch.testing.assert_close(experience.kl, log_ratio)
    torch.testing.assert_close(experience.rewards.sum(dim=1), scores - 0.2 * log_ratio.sum(dim=1))


def test_returns_are_advantages_before_whitening_plus_values(settings: PpoSettings) -> None:
    _, rollout, experience, _ = experience_of(settings, stirred=True)
    mask, values = rollout.responses.mask, rollout.policy.values
    assert experience.returns is not None
    assert values is not None

    raw = (experience.returns - values)[mask]

    whitened = (raw - raw.mean()) / raw.std()
    torch.testing.assert_close(experience.advantages[mask], whitened, atol=1e-4, rtol=1e-3)


def test_how_many_rows_are_in_memory_changes_no_weight(settings: PpoSettings) -> None:
    after = []
    for rows in (1, 3, 4):
        chosen = replace(settings, microbatch_size=rows)
        learner, rollout, experience, optimizer = experience_of(chosen, stirred=True)
        update(learner, optimizer, rollout, experience, settings=chosen, step=1, processes=ALONE)
        after.append(weights(learner))

    torch.testing.assert_close(after[0], after[1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after[0], after[2], atol=1e-5, rtol=1e-4)


def test_a_policy_that_moves_too_far_ends_the_updates_before_that_step(settings: PpoSettings) -> None:
    tight = replace(settings, target_kl=1e-6)
    learner, rollout, experience, optimizer = experience_of(tight)

    moved = update(learner, optimizer, rollout, experience, settings=tight, step=1, processes=ALONE)

    assert (moved.taken, moved.planned) == (1, 4)


def test_without_a_target_all_updates_are_made(settings: PpoSettings) -> None:
    free = replace(settings, target_kl=0.0)
    learner, rollout, experience, optimizer = experience_of(free)

    moved = update(learner, optimizer, rollout, experience, settings=free, step=1, processes=ALONE)

    assert (moved.taken, moved.planned) == (4, 4)


def test_a_bound_of_0_clips_no_gradient(settings: PpoSettings) -> None:
    after = []
    for bound in (0.0, 1e6, 1e-3):
        chosen = replace(settings, max_grad_norm=bound, target_kl=0.0)
        learner, rollout, experience, optimizer = experience_of(chosen)
        update(learner, optimizer, rollout, experience, settings=chosen, step=1, processes=ALONE)
        after.append(weights(learner))

    torch.testing.assert_close(after[0], after[1], atol=0, rtol=0)
    assert any(not torch.equal(free, bound) for free, bound in zip(after[0], after[2], strict=True))


def test_a_gradient_that_is_no_number_changes_no_weight(settings: PpoSettings) -> None:
    learner, rollout, experience, optimizer = experience_of(settings)
    before = weights(learner)
    broken = replace(experience, advantages=experience.advantages * float("nan"))

    with pytest.raises(DivergedError, match="not finite"):
        update(learner, optimizer, rollout, broken, settings=settings, step=1, processes=ALONE)

    torch.testing.assert_close(weights(learner), before, atol=0, rtol=0)


def test_every_epoch_has_every_row_once_in_an_order_of_its_own(settings: PpoSettings) -> None:
    batches = minibatches(10, settings=settings, step=3)

    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    first, second = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    again = minibatches(10, settings=settings, step=3)
    assert all(torch.equal(one, other) for one, other in zip(batches, again, strict=True))


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_without_a_value_function_all_tokens_of_a_response_share_its_advantage(
    settings: PpoSettings, estimator: str
) -> None:
    grouped = replace(settings, estimator=estimator, batch_size=2, samples_per_prompt=4)
    learner, rollout, experience, optimizer = experience_of(grouped)
    mask = rollout.responses.mask

    moved = update(learner, optimizer, rollout, experience, settings=grouped, step=1, processes=ALONE)

    assert experience.returns is None
    for row in range(8):
        assert len(set(experience.advantages[row][mask[row]].tolist())) == 1
    whole = experience.advantages[:, 0].view(2, 4)
    torch.testing.assert_close(whole.sum(dim=1), torch.zeros(2), atol=1e-4, rtol=0)
    assert "ppo/loss/value" not in moved.metrics
    assert torch.equal(rollout.prompts.ids[0], rollout.prompts.ids[3])


def test_a_response_that_does_not_end_is_penalised(settings: PpoSettings) -> None:
    _, rollout, _, _ = experience_of(settings)
    lenient, strict = (
        assess(rollout, settings=replace(settings, missing_eos_penalty=penalty), coefficient=0.0)
        for penalty in (0.0, 2.0)
    )

    difference = (lenient.rewards - strict.rewards).sum(dim=1)

    assert difference.tolist() == pytest.approx((2.0 * ~rollout.responses.ended).tolist())
    assert not bool(rollout.responses.ended.all())


def test_whitened_rewards_keep_their_mean(settings: PpoSettings) -> None:
    _, rollout, plain, _ = experience_of(settings)

    white = assess(rollout, settings=replace(settings, whiten_rewards=True), coefficient=0.2)

    mask = rollout.responses.mask
    assert float(white.rewards[mask].mean()) == pytest.approx(float(plain.rewards[mask].mean()), abs=1e-5)
    assert float(white.rewards[mask].std()) == pytest.approx(1, abs=1e-3)


def test_chunks_hold_every_row_once_and_similar_lengths_together(settings: PpoSettings) -> None:
    rollout = rollout_of(load_learner(Path(settings.base)), settings)
    lengths = rollout.prompts.mask.sum(dim=1) + rollout.responses.lengths
    rows = torch.tensor([7, 1, 4, 2, 0])

    chunks = chunks_by_length(rows, rollout.prompts, rollout.responses, size=2)

    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    ordered = torch.cat(chunks)
    assert sorted(ordered.tolist()) == sorted(rows.tolist())
    assert lengths[ordered].tolist() == sorted(lengths[rows].tolist())


def test_limits_are_drawn_between_their_bounds(settings: PpoSettings) -> None:
    several = replace(settings, min_limit=2, batch_size=40, microbatch_size=40)

    rollout = rollout_of(load_learner(Path(settings.base)), several)

    cut = rollout.responses.lengths[~rollout.responses.ended]
    assert set(cut.tolist()) == {2, 3, 4, 5, 6}
