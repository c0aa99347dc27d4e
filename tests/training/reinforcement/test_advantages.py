from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guardrail_training.reinforcement.objectives import (
    generalised_advantages,
    group_advantages,
    masked_mean,
    masked_variance,
    token_kl,
    token_rewards,
    whiten,
)


def ragged(lengths: list[int], *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values and mask of responses of these lengths; what lies outside the mask is noise as well."""
    random = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return torch.randn(shape, generator=random), torch.randn(shape, generator=random), mask


def slow_advantages(rewards: list[float], values: list[float], *, gamma: float, lam: float) -> list[float]:
    """The definition: a discounted sum of one-step errors, token by token."""
    errors = [
        reward + gamma * (values[t + 1] if t + 1 < len(values) else 0.0) - values[t]
        for t, reward in enumerate(rewards)
    ]
    return [
        sum((gamma * lam) ** ahead * error for ahead, error in enumerate(errors[t:]))
        for t in range(len(errors))
    ]


lengths = st.lists(st.integers(1, 7), min_size=1, max_size=4)


@given(lengths=lengths, seed=st.integers(0, 1000), gamma=st.floats(0, 1), lam=st.floats(0, 1))
def test_advantages_equal_the_slow_loop_and_padding_gets_none(
    lengths: list[int], seed: int, gamma: float, lam: float
) -> None:
    rewards, values, mask = ragged(lengths, seed=seed)

    fast = generalised_advantages(rewards, values, mask, gamma=gamma, gae_lambda=lam)

    for row, length in enumerate(lengths):
        slow = slow_advantages(
            rewards[row, :length].tolist(), values[row, :length].tolist(), gamma=gamma, lam=lam
        )
        np.testing.assert_allclose(fast[row, :length], slow, atol=1e-4)
        assert not fast[row, length:].any()


def test_without_discount_and_decay_an_advantage_is_the_sum_of_later_rewards_less_the_value() -> None:
    rewards, values, mask = ragged([3], seed=0)

    advantages = generalised_advantages(rewards, values, mask, gamma=1.0, gae_lambda=1.0)

    later = rewards.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(advantages, later - values)


@given(lengths=lengths.filter(lambda found: sum(found) > 1), seed=st.integers(0, 1000))
def test_whitened_tokens_have_mean_0_and_variance_1_over_the_batch(lengths: list[int], seed: int) -> None:
    values, _, mask = ragged(lengths, seed=seed)

    whitened = whiten(5 * values + 3, mask)

    real = whitened[mask]
    assert abs(float(real.mean())) < 1e-4
    assert float(real.var()) == pytest.approx(1, abs=1e-3)
    assert not whitened[~mask].any()


def test_whitening_may_keep_the_mean() -> None:
    values, _, mask = ragged([4, 2], seed=1)

    kept = whiten(values + 3, mask, shift_mean=False)

    assert float(kept[mask].mean()) == pytest.approx(float((values + 3)[mask].mean()), abs=1e-5)
    assert float(kept[mask].std()) == pytest.approx(1, abs=1e-4)


def test_masked_moments_are_those_of_the_real_tokens() -> None:
    values, _, mask = ragged([4, 1, 3], seed=2)

    assert float(masked_mean(values, mask)) == pytest.approx(float(values[mask].mean()), abs=1e-6)
    assert float(masked_variance(values, mask)) == pytest.approx(float(values[mask].var()), abs=1e-6)
    assert float(masked_variance(values[:1, :1], mask[:1, :1])) == 0


def test_the_score_stands_at_the_last_real_token_and_the_penalty_at_each() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    kl = torch.tensor([[1.0, 2.0, 3.0], [4.0, 9.0, 9.0]])

    rewards = token_rewards(kl, torch.tensor([10.0, 20.0]), mask, coefficient=0.5)

    assert rewards.tolist() == [[-0.5, -1.0, 8.5], [18.0, 0.0, 0.0]]


def test_both_estimates_of_kl_have_the_divergence_as_their_mean_and_k3_is_never_negative() -> None:
    policy = torch.tensor([0.7, 0.2, 0.1]).log()
    reference = torch.tensor([0.3, 0.3, 0.4]).log()
    divergence = float((policy.exp() * (policy - reference)).sum())

    for estimator in ("k1", "k3"):
        estimate = token_kl(policy, reference, estimator=estimator)
        assert float((policy.exp() * estimate).sum()) == pytest.approx(divergence, abs=1e-6)
    assert bool((token_kl(policy, reference, estimator="k1") < 0).any())
    assert bool((token_kl(policy, reference, estimator="k3") >= 0).all())


@given(rewards=st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6), group=st.sampled_from([2, 3, 6]))
def test_a_groups_baseline_is_the_mean_of_the_others(rewards: list[float], group: int) -> None:
    fast = group_advantages(torch.tensor(rewards), group=group, standardise=False)

    for row, reward in enumerate(rewards):
        first = row - row % group
        others = [r for place, r in enumerate(rewards[first : first + group], first) if place != row]
        assert float(fast[row]) == pytest.approx(reward - sum(others) / len(others), abs=1e-4)


def test_a_standardised_group_has_mean_0_and_deviation_1_and_equal_rewards_teach_nothing() -> None:
    rewards = torch.tensor([1.0, 2.0, 4.0, 3.0, 3.0, 3.0])

    advantages = group_advantages(rewards, group=3, standardise=True)

    assert float(advantages[:3].mean()) == pytest.approx(0, abs=1e-6)
    assert float(advantages[:3].std()) == pytest.approx(1, abs=1e-3)
    assert advantages[3:].tolist() == [0, 0, 0]
