"""Posterior, regularizer and balancing against the enumeration of a small language model."""

from __future__ import annotations

import math

import pytest
import torch

from guardrail_training.nado.balance import (
    balanced,
    importance_weights,
    prefix_importance,
    success_rate,
)
from guardrail_training.nado.candidates import likely_tokens, over_candidates
from guardrail_training.nado.posterior import (
    expected_success,
    posterior,
    prefix_weights,
    response_kl,
    token_kl,
)
from tests.training.nado import toy

CLOSE = {"atol": 1e-6, "rtol": 1e-6}


@pytest.fixture(params=[0, 1, 2])
def table(request: pytest.FixtureRequest) -> torch.Tensor:
    return toy.random_table(request.param)


def whole(table: torch.Tensor) -> torch.Tensor:
    """All words as candidates, and an empty tail."""
    ids = torch.arange(toy.WORDS).expand(len(table), -1)
    return over_candidates(table, ids)


def test_the_success_of_a_prefix_is_the_mean_over_its_continuations(table: torch.Tensor) -> None:
    success = toy.success_by_enumeration(table)

    found = expected_success(whole(table), toy.log_success_table(success)).exp()

    expected = torch.tensor([success[prefix] for prefix in toy.PREFIXES], dtype=torch.float64)
    torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("oracle", [toy.satisfies, toy.hard])
def test_the_token_posteriors_multiply_to_the_posterior_of_responses(
    table: torch.Tensor, oracle: object
) -> None:
    success = toy.success_by_enumeration(table, oracle)
    log_q = posterior(whole(table), toy.log_success_table(success))[:, :-1]

    found = torch.stack([toy.sum_along(log_q, response) for response in toy.RESPONSES]).exp()

    expected = toy.response_logprobs(table).exp() * toy.labels(oracle) / success[()]
    torch.testing.assert_close(found, expected, **CLOSE)


def test_the_regularizer_of_responses_is_minus_the_log_of_one_less_the_toxic_rate(
    table: torch.Tensor,
) -> None:
    success = toy.success_by_enumeration(table, toy.hard)
    toxic_rate = 1 - success[()]
    log_p, log_r = whole(table), toy.log_success_table(success)
    kl = token_kl(posterior(log_p, log_r), log_p)
    rows, reached = toy.rows(), toy.response_logprobs(table).exp()
    before = kl[rows.before] * rows.mask

    # Under prefixes that q reaches ...
    under_q = reached * toy.labels(toy.hard) / success[()]
    assert float((under_q[:, None] * before).sum()) == pytest.approx(-math.log(1 - toxic_rate), abs=1e-6)

    # ... and under those that p reaches, each with its weight.
    log_success = expected_success(log_p, log_r)[rows.before]
    weights = prefix_weights(log_success)
    assert float((reached[:, None] * weights * before).sum()) == pytest.approx(
        -math.log(1 - toxic_rate), abs=1e-6
    )


@pytest.mark.parametrize("oracle", [toy.satisfies, toy.hard])
def test_the_distance_of_the_target_is_known_from_labels_and_probabilities_alone(
    table: torch.Tensor, oracle: object
) -> None:
    success, labels = toy.success_by_enumeration(table, oracle), toy.labels(oracle)
    log_p = toy.response_logprobs(table)
    under_q = log_p.exp() * labels / success[()]
    slow = sum(float(q * (q.log() - p)) for q, p in zip(under_q, log_p, strict=True) if q > 0)

    found = response_kl(labels, log_p.exp())

    assert found == pytest.approx(slow, abs=1e-6)
    # It is what the tokens' divergences add up to along responses of the target.
    along = toy.rows()
    kl = token_kl(posterior(whole(table), toy.log_success_table(success)), whole(table))
    assert found == pytest.approx(float((under_q[:, None] * kl[along.before] * along.mask).sum()), abs=1e-6)


def test_labels_between_no_and_yes_bring_the_target_nearer_than_minus_the_log_of_their_mean(
    table: torch.Tensor,
) -> None:
    reached = toy.response_logprobs(table).exp()
    for oracle, is_equal in ((toy.hard, True), (toy.satisfies, False)):
        minus_log = -math.log(toy.success_by_enumeration(table, oracle)[()])
        found = response_kl(toy.labels(oracle), reached)
        assert found == pytest.approx(minus_log, abs=1e-9) if is_equal else found < minus_log - 0.02


def test_the_same_label_everywhere_asks_for_no_distance() -> None:
    assert response_kl(torch.full((9,), 0.4), torch.ones(9)) == pytest.approx(0.0, abs=1e-6)


def test_the_gradient_of_the_regularizer_equals_that_of_the_sum_over_responses(table: torch.Tensor) -> None:
    success = toy.success_by_enumeration(table, toy.hard)
    log_q = posterior(whole(table), toy.log_success_table(success))
    under_q = toy.response_logprobs(table).exp() * toy.labels(toy.hard) / success[()]
    rows = toy.rows()
    model = toy.random_table(seed=9).requires_grad_()
    slow_model = model.detach().clone().requires_grad_()

    kl = token_kl(log_q, whole(model))
    found = (under_q[:, None] * kl[rows.before] * rows.mask).sum()
    found.backward()
    kept = under_q > 0
    slow = (under_q[kept] * (under_q[kept].log() - toy.response_logprobs(slow_model)[kept])).sum()
    slow.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped

    assert found.item() == pytest.approx(slow.item(), abs=1e-6)
    assert model.grad is not None
    assert slow_model.grad is not None
    torch.testing.assert_close(model.grad, slow_model.grad, **CLOSE)


def test_equal_success_everywhere_gives_the_language_model_back_to_the_bit() -> None:
    log_p = over_candidates(torch.randn(50, 300), torch.arange(20).expand(50, -1))

    q = posterior(log_p, torch.full((50, 20), -0.25), strength=2.0, max_log_ratio=5.0)

    torch.testing.assert_close(q, log_p, atol=1e-6, rtol=0)
    assert token_kl(q, log_p).abs().max() < 1e-6


def test_a_lost_prefix_keeps_the_language_model() -> None:
    log_p = over_candidates(torch.randn(2, 9), torch.arange(9).expand(2, -1))
    log_success = torch.full((2, 9), -torch.inf)
    log_success[1, 4] = -0.5

    q = posterior(log_p, log_success)

    torch.testing.assert_close(q[0], log_p[0])
    assert q[1].exp()[4] == 1
    assert token_kl(q, log_p)[1].item() == pytest.approx(-log_p[1, 4].item(), abs=1e-6)


def test_a_bounded_ratio_bounds_what_one_token_can_lose() -> None:
    log_p = over_candidates(torch.zeros(1, 4), torch.arange(4)[None])
    log_success = torch.tensor([[0.0, 0.0, 0.0, -15.0]])

    free, held = posterior(log_p, log_success), posterior(log_p, log_success, max_log_ratio=2.0)

    assert (free - log_p)[0, 3] < -14
    assert -2.2 < (held - log_p)[0, 3] < -1.9


def test_candidates_and_tail_sum_to_one_and_hold_the_token_taken() -> None:
    logits, taken = torch.randn(30, 200), torch.randint(200, (30,))

    ids = likely_tokens(logits, count=8, taken=taken)
    log_p = over_candidates(logits, ids)

    assert bool((ids == taken[:, None]).any(dim=1).all())
    assert all(len(set(row)) == 8 for row in ids.tolist())
    torch.testing.assert_close(log_p.exp().sum(dim=1), torch.ones(30))
    torch.testing.assert_close(log_p[:, :-1], logits.log_softmax(dim=1).gather(1, ids))


def test_a_tail_of_average_success_changes_nothing_and_a_worse_one_little() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(40, 500, dtype=torch.float64)
    ids = likely_tokens(logits, count=500)
    log_r = torch.nn.functional.logsigmoid(1 + torch.randn(40, 500, dtype=torch.float64))
    exact = token_kl(posterior(over_candidates(logits, ids), log_r), over_candidates(logits, ids))

    few = over_candidates(logits, ids[:, :64])
    rough = token_kl(posterior(few, log_r[:, :64]), few)

    assert few[:, -1].exp().mean() < 0.2
    assert float((rough - exact).abs().mean() / exact.mean()) < 0.25
    assert float(rough.mean()) < float(exact.mean())


def test_the_balanced_optimum_and_its_offset_give_the_true_success_of_every_prefix(
    table: torch.Tensor,
) -> None:
    labels = toy.labels()
    drawn = balanced(labels, toy.response_logprobs(table).exp())
    success = toy.success_by_enumeration(table)

    assert float((drawn.probabilities * drawn.labels).sum()) == pytest.approx(0.5)
    for prefix in toy.PREFIXES:
        rows = [row for row, one in enumerate(toy.RESPONSES) if one[: len(prefix)] == prefix]
        chance = drawn.probabilities[rows]
        rate = float((chance * drawn.labels[rows]).sum() / chance.sum())
        if 0 < rate < 1:
            true = 1 / (1 + math.exp(-(math.log(rate / (1 - rate)) + drawn.offset)))
            assert true == pytest.approx(success[prefix], abs=1e-6)
        else:
            assert rate == pytest.approx(success[prefix], abs=1e-6)


def test_importance_weights_undo_a_temperature() -> None:
    table = toy.random_table()
    wanted, drawn = toy.response_logprobs(table), toy.response_logprobs(table * 0.5)
    labels = toy.labels()

    weights = importance_weights(wanted, drawn, min_weight=0.0, max_weight=math.inf)

    chance = drawn.exp()
    rate = float((chance * weights * labels).sum() / (chance * weights).sum())
    assert rate == pytest.approx(toy.success_by_enumeration(table)[()], abs=1e-6)


def test_importance_weights_are_bounded_and_one_on_average() -> None:
    weights = importance_weights(torch.tensor([0.0, 0.0, 9.0]), torch.zeros(3))

    assert weights.tolist() == pytest.approx([0.6 / 3.4, 0.6 / 3.4, 9.0 / 3.4], abs=0.01)
    assert importance_weights(torch.ones(4), torch.zeros(4)).tolist() == [1.0] * 4


def test_a_prefix_is_weighed_by_its_own_tokens_alone() -> None:
    ratios = torch.tensor([[0.3, -0.2, 9.0], [-0.1, 0.4, 0.0], [0.2, 5.0, 0.0]])
    mask = torch.tensor([[True, True, True], [True, True, True], [True, False, False]])

    weights = prefix_importance(ratios, mask, min_weight=0.0, max_weight=math.inf)

    def share(*log_ratios: float) -> list[float]:
        odds = [math.exp(ratio) for ratio in log_ratios]
        return [len(odds) * one / sum(odds) for one in odds]

    assert weights[:, 0].tolist() == [1.0, 1.0, 1.0]  # nothing stands before the first token
    assert weights[:, 1].tolist() == pytest.approx([*share(0.3, -0.1), 0.0])
    assert weights[:, 2].tolist() == pytest.approx([*share(0.1, 0.3), 0.0])


def test_a_rate_without_failures_still_has_a_logit() -> None:
    assert success_rate(torch.ones(9), torch.ones(9)) == 0.95
    assert success_rate(torch.zeros(9), torch.ones(9)) == pytest.approx(0.05)
