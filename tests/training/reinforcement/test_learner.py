from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from guardrail_training import modeling
from guardrail_training.modeling.families import Prompts
from guardrail_training.reinforcement.policy import Learner, ValueHead
from tests.training.reinforcement.conftest import layers_of, load_learner

PROMPTS = [[5, 6, 7, 8], [10, 11], [12, 13, 14]]
RESPONSES = torch.tensor([[20, 21, 1], [23, 1, 0], [25, 0, 0]])
MASK = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])


def gradients(learner: Learner, prompts: Prompts, responses: Tensor) -> list[Tensor]:
    reading = learner.read(prompts, responses, MASK)
    assert reading.values is not None
    (reading.logprobs.square().sum() + reading.values.square().sum()).backward()
    found = [p.grad.clone() for p in modeling.trainable_parameters(learner) if p.grad is not None]
    learner.zero_grad()
    return found


def test_a_fresh_policy_is_its_reference_to_the_bit_and_its_values_are_0(base: Path) -> None:
    learner = load_learner(base)
    prompts = learner.family.pad(PROMPTS)

    with torch.no_grad():
        reading = learner.read(prompts, RESPONSES, MASK)

    assert torch.equal(reading.logprobs, learner.reference_logprobs(prompts, RESPONSES, MASK))
    assert reading.values is not None
    assert not reading.values.any()


def test_log_probabilities_are_those_of_the_models_logits_at_the_temperature(base: Path) -> None:
    learner = load_learner(base, stirred=True, temperature=0.7)

    with torch.no_grad():
        reading = learner.read(learner.family.pad(PROMPTS), RESPONSES, MASK)
        states = learner.family.states(learner.family.pad(PROMPTS), RESPONSES)
        slow = (learner.family.head(states) / 0.7).log_softmax(dim=2).gather(2, RESPONSES[..., None])[..., 0]

    torch.testing.assert_close(reading.logprobs, slow * MASK, atol=1e-5, rtol=1e-4)


def test_the_reference_stays_while_the_policy_moves(base: Path) -> None:
    fresh, moved = load_learner(base), load_learner(base, stirred=True)
    prompts = fresh.family.pad(PROMPTS)

    reference = moved.reference_logprobs(prompts, RESPONSES, MASK)

    assert torch.equal(reference, fresh.reference_logprobs(prompts, RESPONSES, MASK))
    with torch.no_grad():
        assert not torch.allclose(moved.read(prompts, RESPONSES, MASK).logprobs, reference, atol=1e-2)


def test_reading_the_reference_leaves_the_same_parameters_trainable(base: Path) -> None:
    learner = load_learner(base)
    before = [name for name, parameter in learner.named_parameters() if parameter.requires_grad]

    learner.reference_logprobs(learner.family.pad(PROMPTS), RESPONSES, MASK)

    assert before == [name for name, parameter in learner.named_parameters() if parameter.requires_grad]
    assert all(".lora_" in name or name.startswith("value_head.") for name in before)


def test_there_is_no_dropout_though_the_base_was_trained_with_it(base: Path) -> None:
    learner = load_learner(base, stirred=True)
    prompts = learner.family.pad(PROMPTS)

    first, second = (learner.read(prompts, RESPONSES, MASK).logprobs for _ in range(2))

    assert torch.equal(first, second)
    assert not any(module.training for module in learner.modules())


def test_padding_has_no_gradient_and_no_influence(base: Path) -> None:
    learner = load_learner(base, stirred=True)
    prompts = learner.family.pad(PROMPTS)
    noisy = replace(prompts, ids=prompts.ids.masked_fill(~prompts.mask, 17))

    clean = gradients(learner, prompts, RESPONSES)
    filled = gradients(learner, noisy, RESPONSES.masked_fill(~MASK, 18))

    assert len(clean) == len(modeling.trainable_parameters(learner))
    torch.testing.assert_close(clean, filled, atol=1e-6, rtol=1e-5)
    reading = learner.read(prompts, RESPONSES, MASK)
    assert reading.values is not None
    assert not reading.logprobs[~MASK].any()
    assert not reading.values[~MASK].any()


def test_the_first_token_has_gradient_even_alone(base: Path) -> None:
    learner = load_learner(base, stirred=True)
    prompts = learner.family.pad(PROMPTS)

    reading = learner.read(prompts, RESPONSES[:, :1], MASK[:, :1])
    reading.logprobs.sum().backward()

    assert reading.logprobs.shape == (3, 1)
    assert bool((reading.logprobs < 0).all())
    moved = [p for p in modeling.trainable_parameters(learner.model) if p.grad is not None and p.grad.any()]
    assert moved


def test_rows_alone_and_together_read_alike(base: Path) -> None:
    learner = load_learner(base, stirred=True)
    prompts = learner.family.pad(PROMPTS)

    with torch.no_grad():
        together = learner.read(prompts, RESPONSES, MASK)
        for row in range(3):
            one, length = torch.tensor([row]), int(MASK[row].sum())
            alone = learner.read(prompts.select(one), RESPONSES[one, :length], MASK[one, :length])
            torch.testing.assert_close(alone.logprobs[0], together.logprobs[row, :length], atol=1e-5, rtol=0)


def test_entropies_are_given_where_they_are_asked_for(base: Path) -> None:
    learner = load_learner(base)
    prompts = learner.family.pad(PROMPTS)

    with torch.no_grad():
        entropies = learner.read(prompts, RESPONSES, MASK, with_entropies=True).entropies

    assert entropies is not None
    assert bool((entropies[MASK] > 0).all())
    assert not entropies[~MASK].any()
    assert learner.read(prompts, RESPONSES, MASK).entropies is None


def test_a_bfloat16_model_gives_float32_log_probabilities_and_values(base: Path) -> None:
    model = modeling.add_lora(
        modeling.load_base(base, dtype=torch.bfloat16), rank=4, alpha=8, dropout=0.0, targets=layers_of(base)
    )
    learner = Learner(model, pad_id=0, temperature=1.0, dtype=torch.bfloat16, has_values=True)
    prompts = learner.family.pad(PROMPTS)

    reading = learner.read(prompts, RESPONSES, MASK)

    assert reading.logprobs.dtype == torch.float32
    assert reading.values is not None
    assert reading.values.dtype == torch.float32
    with torch.no_grad():
        reference = learner.reference_logprobs(prompts, RESPONSES, MASK)
    assert torch.equal(reading.logprobs.detach(), reference)


def test_a_value_head_reads_states_of_any_scale() -> None:
    torch.manual_seed(0)
    head, states = ValueHead(8), torch.randn(5, 8)
    with torch.no_grad():
        head.linear.weight.add_(1.0)
        head.linear.weight[0, 0] = -3.0

    torch.testing.assert_close(head(states), head(100 * states), atol=1e-3, rtol=1e-3)
    assert head(states.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("has_values", [True, False])
def test_only_ppo_has_a_value_head(base: Path, has_values: bool) -> None:
    learner = load_learner(base, has_values=has_values)

    reading = learner.read(learner.family.pad(PROMPTS), RESPONSES, MASK)

    assert (reading.values is not None) is has_values
