"""A tiny PPO run with samples, made by the trainer and the evaluation themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from guardrail_training.evaluation.generation import compare
from guardrail_training.evaluation.generation.settings import GenerationSettings
from guardrail_training.reinforcement import ppo
from guardrail_training.report.page import page_of
from guardrail_training.report.run import read_run
from guardrail_training.rewards.algebra import Answer, named
from tests.training.reinforcement.conftest import WORDS, llama_base, small_settings

__all__ = ["llama_base"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads, much slower where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def share_of_first_words(answers: list[Answer]) -> list[float]:
    """The share of a response's words that are in the first half of the vocabulary."""
    return [
        sum(word in WORDS[:16] for word in answer.response.split()) / max(1, len(answer.response.split()))
        for answer in answers
    ]


REWARD = named("words", share_of_first_words)


@pytest.fixture(scope="session")
def finished_run(llama_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps of PPO on a tiny Llama, compared with its base on twelve prompts."""
    folder = tmp_path_factory.mktemp("finished")
    settings = small_settings(llama_base, folder, name="tiny-run")
    ppo.run(settings, reward=REWARD)
    rows = [{"text": f"{word} {word}", "best": word} for word in WORDS[:12]]
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    compared = GenerationSettings(
        run=settings.out,
        data=str(folder),
        prompts="questions.jsonl",
        field="text",
        reference="best",
        judges=("b-words",),
        batch_size=5,
    )
    compare.run(compared, reward=REWARD, toxicity={"b-words": _share_of_b})
    return Path(settings.out)


def _share_of_b(answers: list[Answer]) -> list[float]:
    return [answer.response.count("b") / max(1, len(answer.response.split())) for answer in answers]


@pytest.fixture(scope="session")
def content(finished_run: Path) -> bytes:
    """The page about that run."""
    return page_of(read_run(finished_run), rows=100)


@pytest.fixture
def run_copy(finished_run: Path, tmp_path: Path) -> Path:
    """The run in a folder that a test may spoil."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
