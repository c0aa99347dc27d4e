from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from guardrail_training.modeling import EncodedExample
from guardrail_training.preference.losses import (
    PairLogprobs,
    dpo_losses,
    dpo_objective,
    implicit_rewards,
    log_odds,
    orpo_losses,
    orpo_objective,
)
from guardrail_training.preference.tuning import PreferencePair, plan_batches, read_pairs
from tests.training.reinforcement.conftest import load_learner

logprob = st.floats(-200, 0, width=32)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_the_dpo_loss_is_the_value_worked_by_hand() -> None:
    losses = dpo_losses(
        column(-10.0, -3.0),
        column(-12.0, -1.0),
        reference_chosen=column(-11.0, -2.0),
        reference_rejected=column(-11.0, -2.0),
        beta=0.5,
    )

    # 0.5 * ((-10 + 11) - (-12 + 11)) = 1, and 0.5 * ((-3 + 2) - (-1 + 2)) = -1
    assert losses.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.e)])


def test_the_implicit_reward_is_beta_times_the_log_ratio() -> None:
    assert implicit_rewards(column(-10.0), column(-12.0), beta=0.1).item() == pytest.approx(0.2)


@given(chosen=logprob, rejected=logprob, beta=st.floats(0.01, 10))
def test_dpo_begins_at_log_2_whatever_the_responses(chosen: float, rejected: float, beta: float) -> None:
    start = column(chosen), column(rejected)

    losses = dpo_losses(*start, reference_chosen=start[0], reference_rejected=start[1], beta=beta)

    assert losses.item() == pytest.approx(math.log(2), abs=1e-7)


@given(chosen=logprob, rejected=logprob, reference=logprob)
def test_the_dpo_loss_says_in_which_order_the_implicit_rewards_are(
    chosen: float, rejected: float, reference: float
) -> None:
    both = column(reference)

    loss = dpo_losses(
        column(chosen), column(rejected), reference_chosen=both, reference_rejected=both, beta=1.0
    )

    assert math.isfinite(loss.item())
    assert (loss.item() < math.log(2)) <= (chosen > rejected)


def test_the_orpo_loss_is_the_value_worked_by_hand() -> None:
    # Odds of 4 and of 1: their ratio is 4, its share 0.8.
    loss = orpo_losses(column(math.log(0.8)), column(math.log(0.5)), beta=0.1)

    assert loss.item() == pytest.approx(-math.log(0.8) - 0.1 * math.log(0.8))


@given(mean=st.floats(-80, 0, width=32))
def test_log_odds_are_finite_and_those_of_the_definition(mean: float) -> None:
    odds = log_odds(column(mean)).item()

    assert math.isfinite(odds)
    if mean < -1e-3:
        p = math.exp(mean)
        assert odds == pytest.approx(math.log(p) - math.log1p(-p), rel=1e-3, abs=1e-4)


def test_gradients_are_those_of_finite_differences() -> None:
    sums = tuple(
        torch.tensor(values, dtype=torch.float64, requires_grad=True)
        for values in ([-9.0, -4.0, -0.5], [-8.0, -6.0, -2.5])
    )
    reference = torch.tensor([-7.0, -5.0, -1.0], dtype=torch.float64)

    dpo = partial(dpo_losses, reference_chosen=reference, reference_rejected=reference - 1, beta=0.3)
    assert torch.autograd.gradcheck(dpo, sums)
    assert torch.autograd.gradcheck(partial(orpo_losses, beta=0.3), sums)


def test_both_methods_raise_the_chosen_and_lower_the_rejected() -> None:
    for losses in (
        partial(dpo_losses, reference_chosen=column(-3.0), reference_rejected=column(-3.0), beta=0.1),
        partial(orpo_losses, beta=0.1),
    ):
        chosen, rejected = column(-1.0).requires_grad_(), column(-1.5).requires_grad_()
        losses(chosen, rejected).sum().backward()
        assert chosen.grad is not None
        assert rejected.grad is not None
        assert chosen.grad.item() < 0 < rejected.grad.item()


def logprobs_of(chosen: Tensor, rejected: Tensor, tokens: int = 2) -> PairLogprobs:
    counts = torch.full(chosen.shape, tokens)
    return PairLogprobs(chosen, rejected, counts, counts)


def test_the_dpo_objective_adds_the_likelihood_and_shows_known_figures() -> None:
    policy = logprobs_of(column(-4.0, -6.0), column(-8.0, -3.0))
    reference = {"reference_chosen": column(-5.0, -5.0), "reference_rejected": column(-5.0, -5.0)}

    plain, figures = dpo_objective(policy, **reference, beta=0.5, nll_weight=0.0)
    weighted, _ = dpo_objective(policy, **reference, beta=0.5, nll_weight=0.2)

    # Implicit rewards: 0.5 and -0.5 for the chosen, -1.5 and 1 for the rejected. Likelihoods per token: 2, 3.
    assert plain.item() == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1.5))) / 2)
    assert weighted.item() == pytest.approx(plain.item() + 0.2 * 2.5)
    assert figures == pytest.approx(
        {
            "nll_loss": 2.5,
            "rewards/chosen": 0.0,
            "rewards/rejected": -0.25,
            "rewards/margins": 0.25,
            "rewards/accuracies": 0.5,
            "logps/chosen": -5.0,
            "logps/rejected": -5.5,
        }
    )


def test_the_orpo_objective_shows_means_per_token() -> None:
    policy = logprobs_of(column(2 * math.log(0.8)), column(2 * math.log(0.5)))

    loss, figures = orpo_objective(policy, beta=0.1)

    assert loss.item() == pytest.approx(-1.1 * math.log(0.8))
    assert figures["logps/chosen"] == pytest.approx(math.log(0.8))
    assert figures["rewards/rejected"] == pytest.approx(0.1 * math.log(0.5))
    assert figures["rewards/accuracies"] == 1.0
    assert figures["log_odds_chosen"] == pytest.approx(math.log(4), rel=1e-5)


PAIRS = (
    PreferencePair(chosen=EncodedExample((3, 4, 5), (6, 7, 1)), rejected=EncodedExample((3, 4, 5), (8, 1))),
    PreferencePair(chosen=EncodedExample((9,), (10, 1)), rejected=EncodedExample((9,), (11, 12, 13, 14, 1))),
)


def test_log_probabilities_of_pairs_equal_a_slow_loop(base: Path) -> None:
    learner = load_learner(base, has_values=False, stirred=True, temperature=1.0)

    together = read_pairs(learner, PAIRS, pad_id=0)

    assert together.chosen.dtype is torch.float32
    assert together.chosen_tokens.tolist() == [3, 2]
    for row, pair in enumerate(PAIRS):
        for found, example in ((together.chosen, pair.chosen), (together.rejected, pair.rejected)):
            assert found[row].item() == pytest.approx(slow_logprob(learner, example), abs=1e-4)


def slow_logprob(learner: object, example: EncodedExample) -> float:
    """One token after the other from the whole model's own logits."""
    model = learner.model.get_base_model()  # type: ignore[attr-defined]
    total = 0.0
    for place, token in enumerate(example.target):
        before = example.target[:place]
        if model.config.is_encoder_decoder:
            inputs = {
                "input_ids": torch.tensor([example.prompt]),
                "decoder_input_ids": torch.tensor([(model.config.decoder_start_token_id, *before)]),
            }
        else:
            inputs = {"input_ids": torch.tensor([example.prompt + before])}
        with torch.no_grad():
            total += model(**inputs).logits[0, -1].log_softmax(dim=0)[token].item()
    return total


def test_every_pass_takes_each_pair_once_in_another_order() -> None:
    pairs = PAIRS * 10

    batches = plan_batches(pairs, passes=2, batch_size=4, seed=0)

    half = len(batches) // 2
    first, second = ([pair for batch in part for pair in batch] for part in (batches[:half], batches[half:]))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
