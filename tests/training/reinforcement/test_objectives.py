from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guardrail_training.reinforcement.objectives import (
    clipped_policy_loss,
    clipped_value_loss,
    is_clipped,
    is_value_clipped,
)
from guardrail_training.reinforcement.ppo import KlControl

numbers = st.floats(-2, 2, width=32)


@given(log_ratio=numbers, advantage=numbers)
def test_the_policy_loss_is_the_worse_of_the_plain_and_the_clipped_term(
    log_ratio: float, advantage: float
) -> None:
    loss = clipped_policy_loss(torch.tensor(log_ratio), torch.tensor(advantage), clip=0.2)

    ratio = math.exp(log_ratio)
    slow = max(-advantage * ratio, -advantage * min(max(ratio, 0.8), 1.2))
    assert float(loss) == pytest.approx(slow, abs=1e-4)


@given(value=numbers, old=numbers, target=numbers)
def test_the_value_loss_is_the_worse_of_the_plain_and_the_clipped_error(
    value: float, old: float, target: float
) -> None:
    loss = clipped_value_loss(torch.tensor(value), torch.tensor(old), torch.tensor(target), clip=0.2)

    held = min(max(value, old - 0.2), old + 0.2)
    assert float(loss) == pytest.approx(0.5 * max((value - target) ** 2, (held - target) ** 2), abs=1e-4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped"),
    [(1.5, 1.0, True), (0.5, 1.0, False), (0.5, -1.0, True), (1.5, -1.0, False), (1.1, 1.0, False)],
)
def test_a_token_that_has_moved_far_enough_in_the_right_direction_has_no_gradient(
    ratio: float, advantage: float, clipped: bool
) -> None:
    log_ratio = torch.tensor(math.log(ratio), requires_grad=True)

    clipped_policy_loss(log_ratio, torch.tensor(advantage), clip=0.2).backward()

    assert bool(is_clipped(log_ratio, torch.tensor(advantage), clip=0.2)) is clipped
    assert (float(log_ratio.grad or 0) == 0) is clipped


def test_at_ratio_1_the_gradient_is_the_policy_gradient() -> None:
    log_ratio = torch.zeros(3, requires_grad=True)
    advantages = torch.tensor([1.0, -2.0, 0.5])

    clipped_policy_loss(log_ratio, advantages, clip=0.2).sum().backward()

    assert log_ratio.grad is not None
    torch.testing.assert_close(log_ratio.grad, -advantages)


@pytest.mark.parametrize(("kl", "error"), [(6.0, 0.0), (6.6, 0.1), (60.0, 0.2), (0.0, -0.2), (-3.0, -0.2)])
def test_the_adaptive_coefficient_steers_towards_its_target_by_bounded_steps(kl: float, error: float) -> None:
    control = KlControl(coefficient=0.2, target=6.0, horizon=10_000)

    control.update(kl, responses=256)

    assert control.coefficient == pytest.approx(0.2 * (1 + error * 256 / 10_000))


def test_a_fixed_coefficient_stays() -> None:
    control = KlControl(coefficient=0.05, target=None, horizon=10_000)

    control.update(60.0, responses=256)

    assert control.coefficient == 0.05


def test_a_coefficient_travels_through_its_state() -> None:
    control, other = (KlControl(coefficient=c, target=6.0, horizon=100) for c in (0.2, 0.7))

    other.load_state_dict(control.state_dict())

    assert other.coefficient == 0.2


def test_a_value_counts_as_clipped_if_the_held_one_has_the_greater_error() -> None:
    values = torch.tensor([[2.0, 2.0, 0.1, 0.0, 0.0]])
    old, returns = torch.zeros(1, 5), torch.tensor([[3.0, -3.0, 1.0, 0.0, 5.0]])

    clipped = is_value_clipped(values, old, returns, clip=0.5)

    # As trl counts: not every value that moved too far, but those for which holding it back is the worse.
    assert clipped.tolist() == [[True, False, False, False, False]]
    held = torch.clamp(values, old - 0.5, old + 0.5)
    slow = [[(held[0, i] - returns[0, i]) ** 2 > (values[0, i] - returns[0, i]) ** 2 for i in range(5)]]
    assert clipped.tolist() == [[bool(each) for each in row] for row in slow]
