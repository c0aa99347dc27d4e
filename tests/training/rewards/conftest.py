"""The tiny bases of the reinforcement tests."""

from tests.training.reinforcement.conftest import llama_base

__all__ = ["llama_base"]
