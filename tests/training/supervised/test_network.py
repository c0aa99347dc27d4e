"""The loss of every family against the model's own, row by row and without padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from guardrail_training import modeling
from guardrail_training.modeling import EncodedExample
from guardrail_training.modeling.bases import _remove_dropout
from guardrail_training.processes import Processes
from guardrail_training.sft import accumulate, mean_loss
from guardrail_training.supervised.network import TargetLoss, target_tokens
from tests.training.reinforcement.test_families import MODELS, alone

EXAMPLES = [
    EncodedExample((5, 6, 7, 8, 9), (20, 21, 22, 1)),
    EncodedExample((5, 6, 11), (23, 24, 1)),
    EncodedExample((5, 6, 12, 13), (25, 1)),
    EncodedExample((5, 6), (26, 27, 28, 29, 1)),
]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    trained = MODELS[request.param]()
    _remove_dropout(trained.config)
    for layer in trained.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
        if isinstance(getattr(layer, "dropout", None), float):
            layer.dropout = 0.0
    return trained


def slow_loss(model: Any) -> Tensor:
    """The sum over rows of the model's own loss of each row alone."""
    losses = [
        functional.cross_entropy(
            alone(model, list(example.prompt), list(example.target)),
            torch.tensor(example.target),
            reduction="sum",
        )
        for example in EXAMPLES
    ]
    return torch.stack(losses).sum()


def gradients(model: Any) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def test_loss_and_gradient_equal_those_of_each_row_alone(model: Any) -> None:
    network = TargetLoss(model, pad_id=0, dtype=torch.float32)

    fast = network(EXAMPLES)
    fast.backward()
    found = gradients(model)
    model.zero_grad()
    slow = slow_loss(model)
    slow.backward()

    assert fast.item() == pytest.approx(slow.item(), rel=1e-4)
    torch.testing.assert_close(found, gradients(model), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("microbatch_size", [1, 3])
def test_a_few_examples_at_a_time_give_the_gradient_of_all(
    model: Any, microbatch_size: int, recomputes: bool
) -> None:
    whole = TargetLoss(model, pad_id=0, dtype=torch.float32)
    loss = accumulate(whole, EXAMPLES, microbatch_size=None, processes=Processes())
    expected = gradients(model)
    model.zero_grad()

    parts = TargetLoss(model, pad_id=0, dtype=torch.float32, recomputes=recomputes)
    same = accumulate(parts, EXAMPLES, microbatch_size=microbatch_size, processes=Processes())

    assert same == pytest.approx(loss, rel=1e-5)
    torch.testing.assert_close(gradients(model), expected, atol=1e-5, rtol=1e-3)


def test_the_prompt_carries_no_loss(model: Any) -> None:
    network = TargetLoss(model, pad_id=0, dtype=torch.float32)
    one, other = EncodedExample((5, 6), (20, 1)), EncodedExample((5, 6), (20, 21, 22, 1))

    assert target_tokens([one, other]) == 6
    uniform = mean_loss(network, [one], processes=Processes()).value
    assert 0 < uniform < 20


def test_layers_that_recompute_really_do(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.utils.checkpoint

    calls = []
    original = torch.utils.checkpoint.checkpoint
    network = TargetLoss(model, pad_id=0, dtype=torch.float32, recomputes=True).train()
    for layer in model.modules():
        if hasattr(layer, "_gradient_checkpointing_func"):
            layer._gradient_checkpointing_func = lambda *a, **k: (
                calls.append(1) or original(*a, use_reentrant=False, **k)
            )

    network(EXAMPLES).backward()

    assert len(calls) >= 2


def test_dropout_is_off_unless_asked_for(bases: dict[str, Path]) -> None:
    dry = modeling.load_base(bases["t5"], dtype=torch.float32).train()
    wet = modeling.load_base(bases["t5"], dtype=torch.float32, has_dropout=True).train()

    losses = [
        [TargetLoss(model, pad_id=0, dtype=torch.float32).train()(EXAMPLES).item() for _ in range(3)]
        for model in (dry, wet)
    ]

    assert len(set(losses[0])) == 1
    assert len(set(losses[1])) == 3
