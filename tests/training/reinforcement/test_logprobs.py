from __future__ import annotations

import pytest
import torch
from torch import nn

from guardrail_training.reinforcement import policy
from guardrail_training.reinforcement.policy import token_logprobs, token_readings


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 50)


@pytest.mark.parametrize("chunk", [512, 4])
@pytest.mark.parametrize("is_head_frozen", [True, False])
def test_log_probabilities_and_gradients_equal_those_of_a_whole_log_softmax(
    head: nn.Linear, chunk: int, is_head_frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "CHUNK", chunk)
    states, tokens = torch.randn(11, 8), torch.randint(50, (11,))
    found, expected = (states.clone().requires_grad_() for _ in range(2))

    fast = token_logprobs(found, tokens, head, temperature=0.7, is_head_frozen=is_head_frozen)
    slow = (head(expected) / 0.7).log_softmax(dim=1)[torch.arange(11), tokens]

    fast.square().sum().backward()
    slow.square().sum().backward()
    torch.testing.assert_close(fast, slow)
    assert found.grad is not None
    assert expected.grad is not None
    torch.testing.assert_close(found.grad, expected.grad)


def test_log_probabilities_are_float32_sums_whatever_the_head_computes_in() -> None:
    torch.manual_seed(0)
    head = nn.Linear(8, 5000).bfloat16()
    states, tokens = torch.randn(3, 8).bfloat16(), torch.tensor([1, 2, 3])

    found = token_logprobs(states, tokens, head, temperature=1.0)

    exact = head(states).double().log_softmax(dim=1)[torch.arange(3), tokens]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)


def test_the_entropy_is_that_of_the_scaled_distribution(head: nn.Linear) -> None:
    states = torch.randn(6, 8)

    _, entropies = token_readings(states, torch.arange(6), head, temperature=2.0)

    expected = torch.distributions.Categorical(logits=head(states) / 2).entropy()
    torch.testing.assert_close(entropies, expected)
    assert not entropies.requires_grad


def test_a_head_that_is_trained_gets_its_gradient(head: nn.Linear) -> None:
    states, tokens = torch.randn(3, 8), torch.tensor([1, 2, 3])

    token_logprobs(states, tokens, head, temperature=1.0).sum().backward()

    expected = nn.functional.one_hot(tokens, 50) - head(states).softmax(dim=1)
    torch.testing.assert_close(head.bias.grad, expected.sum(dim=0))
