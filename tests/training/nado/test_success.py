"""Log-space probabilities at the edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from guardrail_training.nado.success import (
    bernoulli_kl,
    from_log,
    from_logits,
    log1mexp,
    logit_of,
    prefix_cross_entropy,
)

LOGITS = st.floats(-14, 14)


@given(LOGITS)
def test_both_logarithms_of_a_logit_are_exact(logit: float) -> None:
    found = from_logits(torch.tensor([logit], dtype=torch.float64))

    assert found.log_success.item() == pytest.approx(-math.log1p(math.exp(-logit)))
    assert found.log_failure.item() == pytest.approx(-math.log1p(math.exp(logit)))
    assert found.logit.item() == pytest.approx(logit, abs=1e-9)


@given(st.floats(-14, 13))  # above, 1 - R is smaller than the gap that is kept
def test_a_probability_comes_back_from_its_logarithm(logit: float) -> None:
    there = from_logits(torch.tensor([logit], dtype=torch.float64))

    back = from_log(there.log_success)

    assert back.log_failure.item() == pytest.approx(there.log_failure.item(), rel=1e-4, abs=1e-9)


def test_certainties_stay_finite_with_finite_gradients() -> None:
    logits = torch.tensor([-1e4, -15.0, 0.0, 15.0, 1e4], requires_grad=True)
    surely = torch.tensor([0.0, -1e-9, -1e-6, -80.0], requires_grad=True)

    found, other = from_logits(logits), from_log(surely)
    total = found.log_success.sum() + found.log_failure.sum() + other.log_failure.sum()
    total.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped

    assert torch.isfinite(total)
    for leaf in (logits, surely):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


def test_log1mexp_is_exact_where_the_plain_formula_is_not() -> None:
    values = torch.tensor([-1e-12, -1e-3, -0.6931, -0.6932, -40.0], dtype=torch.float64)
    exact = [math.log(-math.expm1(value)) if value > -1 else math.log1p(-math.exp(value)) for value in values]

    torch.testing.assert_close(log1mexp(values), torch.tensor(exact, dtype=torch.float64))


@given(LOGITS, st.floats(0, 1), LOGITS)
def test_the_cross_entropy_is_that_of_the_lowered_logit(logit: float, label: float, offset: float) -> None:
    found = prefix_cross_entropy(
        from_logits(torch.tensor([logit], dtype=torch.float64)),
        torch.tensor([label], dtype=torch.float64),
        offset=offset,
    )

    lowered = torch.tensor([logit - offset], dtype=torch.float64)
    slow = -(label * functional.logsigmoid(lowered) + (1 - label) * functional.logsigmoid(-lowered))
    torch.testing.assert_close(found, slow)


@given(LOGITS, LOGITS)
def test_bernoulli_kl_equals_the_sum_over_both_outcomes(first: float, second: float) -> None:
    one, other = (from_logits(torch.tensor([logit], dtype=torch.float64)) for logit in (first, second))
    p, q = 1 / (1 + math.exp(-first)), 1 / (1 + math.exp(-second))

    slow = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

    assert bernoulli_kl(one, other).item() == pytest.approx(slow, abs=1e-6)
    assert bernoulli_kl(one, one).item() == 0


def test_logit_of_a_rate() -> None:
    assert logit_of(0.5) == 0
    assert logit_of(0.9) == pytest.approx(math.log(9))
