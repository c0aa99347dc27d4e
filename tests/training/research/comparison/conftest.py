"""The tiny models of the trainers' tests, which rows of the comparison are trained on."""

from __future__ import annotations

from tests.training.regularized.conftest import settings
from tests.training.reinforcement.conftest import _one_thread, llama_base

# Fixtures are shared by importing them.
__all__ = ["_one_thread", "llama_base", "settings"]
