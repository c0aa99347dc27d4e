"""Three processes that work side by side do what one does in turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from guardrail_training.regularized import trainer
from guardrail_training.regularized.settings import RegularizedSettings
from tests.training.launching import launch
from tests.training.regularized.test_trainer import _corpus, metrics

__all__ = ["_corpus"]


@pytest.mark.slow
def test_three_processes_train_to_the_losses_and_weights_of_one(
    settings: RegularizedSettings, tmp_path: Path
) -> None:
    alone = replace(
        settings,
        iterations=3,
        dual_ascent=1.0,
        reward="length(least=2, most=3)",
        schedule="parallel",
        out=str(tmp_path / "one"),
    )
    shared = replace(alone, out=str(tmp_path / "three"))

    trainer.run(alone)
    launch("regularized", shared, launcher="torchrun", processes=3)

    one, three = metrics(alone), metrics(shared)
    assert len(one) == len(three) == 4  # the first samples, and three iterations
    for first, second in zip(one, three, strict=True):
        assert second == pytest.approx(first, abs=1e-4, rel=1e-3)
    for name in ("adapter_model.safetensors", "auxiliary.safetensors"):
        torch.testing.assert_close(
            load_file(Path(alone.out) / "step-9" / name),
            load_file(Path(shared.out) / "step-9" / name),
            atol=1e-4,
            rtol=1e-3,
        )
