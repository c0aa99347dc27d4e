"""The auxiliary model's optimum is R, found by gradients on the enumerated language model."""

from __future__ import annotations

import math

import pytest
import torch

from guardrail_training.nado.balance import balanced
from guardrail_training.nado.candidates import over_candidates
from guardrail_training.nado.objective import prefix_label_losses, prefix_losses
from guardrail_training.nado.posterior import expected_success
from guardrail_training.nado.success import from_logits, logit_of
from tests.training.nado import toy

ROWS = toy.rows()
EVERY = torch.arange(toy.WORDS).expand(len(toy.PREFIXES), -1)


def expected_loss(
    logits: torch.Tensor,
    table: torch.Tensor,
    chance: torch.Tensor,
    labels: torch.Tensor,
    *,
    offset: float = 0.0,
    consistency: float = 1.0,
    holds_expected: bool = False,
) -> torch.Tensor:
    """The loss of a table of logits ``(prefixes, words)`` over all responses, each with its chance."""
    expected = expected_success(over_candidates(table, EVERY), from_logits(logits).log_success)
    found = prefix_losses(
        logits[ROWS.before, ROWS.ids],
        expected[ROWS.before],
        labels,
        ROWS.mask,
        offset=offset,
        holds_expected=holds_expected,
    )
    return (chance * (found.cross_entropy + consistency * found.consistency)).sum()


def fitted(
    table: torch.Tensor, chance: torch.Tensor, labels: torch.Tensor, *, offset: float = 0.0
) -> torch.Tensor:
    """The logits at the minimum of the expected loss, found from zeros."""
    reached = torch.zeros_like(table).index_put((ROWS.before, ROWS.ids), chance[:, None] * ROWS.mask, True)
    # Rarely reached prefixes get longer steps, or the search would take thousands.
    scale = reached.clamp(min=1e-12).rsqrt()
    scaled = torch.zeros_like(table, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scaled], max_iter=500, tolerance_grad=1e-11, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        total = expected_loss(scale * scaled, table, chance, labels, offset=offset)
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]  # as above
    return (scale * scaled).detach()


def true_success(table: torch.Tensor) -> torch.Tensor:
    """R of every prefix continued by every word; labels lie in 0.05..0.95, so that R has a logit."""
    return toy.log_success_table(toy.success_by_enumeration(table, inner)).exp()


def inner(response: toy.Tokens) -> float:
    return 0.05 + 0.9 * toy.satisfies(response)


LABELS = toy.labels(inner)


@pytest.mark.parametrize("consistency", [0.0, 1.0])
@pytest.mark.parametrize("holds_expected", [False, True])
def test_at_the_true_success_no_loss_has_a_gradient(consistency: float, holds_expected: bool) -> None:
    table = toy.random_table()
    logits = true_success(table).logit().requires_grad_()

    loss = expected_loss(
        logits,
        table,
        toy.response_logprobs(table).exp(),
        LABELS,
        consistency=consistency,
        holds_expected=holds_expected,
    )
    (gradient,) = torch.autograd.grad(loss, logits)

    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)


def test_the_minimum_is_the_success_of_every_prefix() -> None:
    table = toy.random_table()

    logits = fitted(table, toy.response_logprobs(table).exp(), LABELS)

    torch.testing.assert_close(logits.sigmoid(), true_success(table), atol=1e-6, rtol=0)


def test_the_minimum_under_balanced_drawing_is_the_true_success() -> None:
    table = toy.random_table(1)
    drawn = balanced(LABELS, toy.response_logprobs(table).exp())

    logits = fitted(table, drawn.probabilities, drawn.labels, offset=drawn.offset)

    torch.testing.assert_close(logits.sigmoid(), true_success(table), atol=1e-6, rtol=0)


def test_the_losses_equal_a_loop_over_prefixes() -> None:
    torch.manual_seed(0)
    taken, expected = torch.randn(3, 4), -torch.rand(3, 4) - 0.1
    labels, lengths = torch.tensor([1.0, 0.0, 0.3]), [4, 2, 1]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]

    found = prefix_losses(taken, expected, labels, mask, offset=0.7)

    for row, length in enumerate(lengths):
        label = float(labels[row])
        logits = [logit_of(math.exp(expected[row, 0])), *taken[row, :length].tolist()]
        shares = [1 / (1 + math.exp(-(logit - 0.7))) for logit in logits]
        entropy = -sum(label * math.log(r) + (1 - label) * math.log(1 - r) for r in shares)
        apart = 0.0
        for step in range(length - 1):
            mean, own = math.exp(expected[row, step + 1]), 1 / (1 + math.exp(-taken[row, step]))
            apart += mean * math.log(mean / own) + (1 - mean) * math.log((1 - mean) / (1 - own))
        assert found.cross_entropy[row].item() == pytest.approx(entropy, rel=1e-4)
        assert found.consistency[row].item() == pytest.approx(apart, rel=1e-4)
        assert int(found.prefixes[row]) == length + 1


def test_padding_has_no_part_in_the_losses() -> None:
    taken, expected = torch.randn(2, 3), -torch.rand(2, 3) - 0.1
    mask = torch.tensor([[True, False, False], [True, True, True]])
    other = torch.where(mask, taken, 99.0).requires_grad_()

    one = prefix_losses(taken, expected, torch.ones(2), mask)
    two = prefix_losses(other, torch.where(mask, expected, -50.0), torch.ones(2), mask)
    (two.cross_entropy + two.consistency).sum().backward()

    torch.testing.assert_close(one.cross_entropy, two.cross_entropy)
    torch.testing.assert_close(one.consistency, two.consistency)
    assert other.grad is not None
    assert other.grad[~mask].abs().max() == 0


def test_a_prefix_label_is_learned_if_there_is_one() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0]], requires_grad=True)
    labels = torch.tensor([[1.0, math.nan, 0.25]])

    losses = prefix_label_losses(logits, labels)
    losses.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped

    def slow(logit: float, label: float) -> float:
        success = 1 / (1 + math.exp(-logit))
        return -label * math.log(success) - (1 - label) * math.log(1 - success)

    assert losses[0].tolist() == pytest.approx([slow(0.5, 1.0), 0.0, slow(2.0, 0.25)])
    assert logits.grad is not None
    assert float(logits.grad[0, 1]) == 0.0
