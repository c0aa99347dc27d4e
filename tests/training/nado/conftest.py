"""The tiny models of the trainers' tests, with auxiliary models over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.nado.guidance import Guidance
from guardrail_training.reinforcement.policy import Learner
from tests.training.reinforcement.conftest import (  # noqa: F401  # fixtures are shared by importing them
    _one_thread,
    llama_base,
    load_learner,
)


@pytest.fixture
def learner(llama_base: Path) -> Learner:  # noqa: F811  # a fixture
    return load_learner(llama_base, has_values=False, temperature=1.0)


def auxiliary_of(learner: Learner, *, stirred: bool = False) -> Auxiliary:
    torch.manual_seed(0)
    auxiliary = Auxiliary(base_of(learner).get_input_embeddings().weight, hidden=32, blocks=1, rank=8)
    if stirred:
        with torch.no_grad():
            for parameter in auxiliary.parameters():
                parameter.add_(torch.randn_like(parameter))
    return auxiliary


def base_of(learner: Learner) -> Any:
    return learner.model.get_base_model()


def guidance_of(auxiliary: Auxiliary, *, candidates: int = 8) -> Guidance:
    return Guidance(auxiliary, strength=1.0, max_log_ratio=5.0, candidates=candidates)
