"""Fitted to samples, the auxiliary model learns what the oracle says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.regularized.fitting import beliefs, fit, quality, ranking_quality
from guardrail_training.regularized.samples import LabelledSamples
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import Learner
from tests.training.nado.conftest import auxiliary_of, guidance_of
from tests.training.regularized.conftest import samples_of
from tests.training.reinforcement.conftest import WORDS


def fitted(learner: Learner, settings: RegularizedSettings, samples: LabelledSamples) -> Auxiliary:
    auxiliary = auxiliary_of(learner)
    auxiliary.start_at(samples.rate)
    optimizer = torch.optim.AdamW(auxiliary.parameters(), lr=1e-2, weight_decay=0.0)
    fit(auxiliary, optimizer, samples, settings=settings, iteration=0, steps=150)
    return auxiliary


def test_rows_shorter_than_the_rest_are_asked_like_any(
    learner: Learner, settings: RegularizedSettings
) -> None:
    samples = samples_of(learner, replace(settings, samples_per_prompt=8))
    lengths = samples.responses.lengths
    shorter = (lengths < lengths.max()).nonzero()[:, 0]
    auxiliary = auxiliary_of(learner, stirred=True)
    auxiliary.start_at(samples.rate)

    together = quality(auxiliary, samples.select(shorter), success_from=0.5)

    alone = [quality(auxiliary, samples.select(row[None]), success_from=0.5) for row in shorter]
    assert len(alone) > 1
    pairs = (lengths[shorter] - 1).tolist()
    gaps = [count * each["auxiliary/gap"] for count, each in zip(pairs, alone, strict=True)]
    assert together["auxiliary/gap"] == pytest.approx(sum(gaps) / sum(pairs), rel=1e-5)
    briers = [each["auxiliary/brier"] for each in alone]
    assert together["auxiliary/brier"] == pytest.approx(sum(briers) / len(briers), rel=1e-5)


def test_fitted_to_samples_it_orders_and_rates_new_ones(
    learner: Learner, settings: RegularizedSettings
) -> None:
    many = replace(settings, samples_per_prompt=20)
    auxiliary = fitted(learner, many, samples_of(learner, many, iteration=0))
    fresh = samples_of(learner, many, iteration=1)
    untrained = auxiliary_of(learner)
    untrained.start_at(fresh.rate)

    found = quality(auxiliary, fresh, success_from=0.5)
    before = quality(untrained, fresh, success_from=0.5)

    assert before["auxiliary/auc_100"] == 0.5
    assert 0.55 < found["auxiliary/auc_25"] < found["auxiliary/auc_100"]
    assert found["auxiliary/auc_100"] > 0.7
    assert found["auxiliary/brier"] < 0.9 * before["auxiliary/brier"]
    assert found["auxiliary/rate"] == pytest.approx(found["auxiliary/label"], abs=0.12)
    assert found["auxiliary/gap"] < 0.25


def test_the_posterior_succeeds_more_often_than_the_language_model(
    learner: Learner, settings: RegularizedSettings
) -> None:
    many = replace(settings, samples_per_prompt=20)
    samples = samples_of(learner, many)
    auxiliary = fitted(learner, many, samples)

    guidance, reading, mask = guidance_of(auxiliary, candidates=35), samples.reading, samples.responses.mask
    guided = guidance.over(reading.states, reading.ids, reading.log_p)

    letters_d = (reading.ids[mask] >= 3 + 24).float()
    before = (reading.log_p[mask][:, :-1].exp() * letters_d).sum(dim=1)
    after = (guided.log_q[mask][:, :-1].exp() * letters_d).sum(dim=1)
    assert float(after.mean()) < 0.7 * float(before.mean())


def test_fitting_depends_on_seed_and_iteration_alone(learner: Learner, settings: RegularizedSettings) -> None:
    samples = samples_of(learner, settings)

    one, two = (fitted(learner, settings, samples) for _ in range(2))

    torch.testing.assert_close(one.state_dict(), two.state_dict(), atol=0, rtol=0, equal_nan=True)


def test_both_views_of_a_prefix_lie_between_0_and_1(learner: Learner, settings: RegularizedSettings) -> None:
    after, before = beliefs(auxiliary_of(learner, stirred=True), samples_of(learner, settings))

    for view in (after, before):
        assert bool(((view >= 0) & (view <= 1)).all())


def test_ranking_quality_counts_pairs_and_ties() -> None:
    scores, positive = torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([True, True, False, False])

    assert ranking_quality(scores, positive) == 0.875
    assert ranking_quality(scores, torch.ones(4, dtype=torch.bool)) is None


def test_prefix_labels_teach_which_token_mattered(learner: Learner, settings: RegularizedSettings) -> None:
    told = replace(settings, prefix_weight=3.0, samples_per_prompt=8)
    samples, fresh = samples_of(learner, told), samples_of(learner, told, iteration=1)
    bad = torch.tensor([[word.startswith("d") for word in ("", "", "", *WORDS)]])

    def contrast(chosen: RegularizedSettings) -> float:
        auxiliary = fitted(learner, chosen, samples)
        every = torch.arange(35).expand(*fresh.responses.ids.shape, -1)
        logits = auxiliary(fresh.reading.states, every)[fresh.responses.mask].detach()
        return float((logits[:, ~bad[0]].mean(dim=1) - logits[:, bad[0]].mean(dim=1)).mean())

    assert contrast(told) > 1.5 * contrast(replace(told, prefix_weight=0.0))
