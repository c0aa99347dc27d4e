from __future__ import annotations

import math

import pytest
import torch

from guardrail_training.modeling.losses import IGNORED, token_cross_entropy


def slow_cross_entropy(logits: list[list[float]], targets: list[int]) -> float:
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        total += math.log(sum(math.exp(value) for value in row)) - row[target]
    return total / len(targets)


def test_cross_entropy_equals_a_slow_loop() -> None:
    logits = torch.randn(7, 11, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 3, 10, 3, 7, 1, 5])

    loss = token_cross_entropy(logits, targets)

    assert loss.item() == pytest.approx(slow_cross_entropy(logits.tolist(), targets.tolist()), abs=1e-6)


def test_the_loss_is_float32_where_the_logits_are_bfloat16() -> None:
    logits = torch.zeros(2, 5, dtype=torch.bfloat16)

    loss = token_cross_entropy(logits, torch.tensor([0, 1]))

    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(math.log(5))


def test_an_ignored_label_or_no_label_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="ignored label"):
        token_cross_entropy(torch.zeros(2, 5), torch.tensor([0, IGNORED]))
    with pytest.raises(ValueError, match="no labelled position"):
        token_cross_entropy(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
