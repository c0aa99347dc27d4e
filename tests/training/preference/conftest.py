"""A tiny adapter to start from, rows to ask about, and settings that fit them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.manifest import Manifest, sha256_of
from guardrail_training import modeling
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.rewards.algebra import Answer, named
from guardrail_training.run import identity_of
from tests.training.reinforcement.conftest import WORDS, _one_thread, base, layers_of, llama_base, t5_base

__all__ = ["_one_thread", "base", "llama_base", "t5_base"]

ROWS = 12


def words(answers: Sequence[Answer]) -> list[float]:
    """The share of words from the first half of the vocabulary."""
    return [
        sum(word in WORDS[:16] for word in answer.response.split()) / max(1, len(answer.response.split()))
        for answer in answers
    ]


REWARD = named("words", words)


def write_start(base: Path, folder: Path) -> Path:
    """A folder with an adapter that has an effect on ``base``."""
    torch.manual_seed(0)
    model = modeling.add_lora(
        modeling.load_base(base, dtype=torch.float32), rank=4, alpha=8, dropout=0.0, targets=layers_of(base)
    )
    with torch.no_grad():
        for parameter in modeling.trainable_parameters(model):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    files = modeling.save_adapter(model, folder)
    Manifest(
        kind="adapter",
        name="start",
        version="1",
        licence="Apache-2.0",
        files={path.name: sha256_of(path) for path in files},
        **identity_of(base),
        template="a0 {text} </s>" if "t5" in base.name else "a0 {text} a1",
        scripts=("Latin",),
    ).save(folder)
    return folder


@pytest.fixture
def start(llama_base: Path, tmp_path: Path) -> Path:
    """An adapter for the causal base."""
    return write_start(llama_base, tmp_path / "start")


def write_rows(folder: Path) -> Path:
    """Rows of one to four words with two references each."""
    rows = [
        {
            "toxic": " ".join(WORDS[(3 * row + word) % len(WORDS)] for word in range(1 + row % 4)),
            "neutral": [WORDS[row], f"{WORDS[row + 1]} {WORDS[row + 8]} a7"],
        }
        for row in range(ROWS)
    ]
    (folder / "paradetox").mkdir(exist_ok=True, parents=True)
    path = folder / "paradetox" / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def settings(llama_base: Path, start: Path, tmp_path: Path) -> PreferenceSettings:
    """Candidates for eight of twelve sentences; two passes over their pairs, three at a time."""
    write_rows(tmp_path)
    return small_settings(llama_base, start, tmp_path)


@pytest.fixture
def settings_of_each(base: Path, tmp_path: Path) -> PreferenceSettings:
    """The same on both families in turn."""
    write_rows(tmp_path)
    return small_settings(base, write_start(base, tmp_path / f"start-{base.name}"), tmp_path)


def small_settings(base: Path, start: Path, folder: Path, **changes: Any) -> PreferenceSettings:
    chosen: dict[str, Any] = {
        "base": str(base),
        "adapter": str(start),
        "data": str(folder),
        "out": str(folder / "run"),
        "sentences": 8,
        "candidates": 4,
        "references": True,
        "response_tokens": 16,
        "sentences_at_once": 3,
        "margin": 0.05,
        "learning_rate": 1e-2,
        "batch_size": 3,
        "dtype": "float32",
        "checkpoint_every": 2,
        "keep_every": 2,
        "keep_models": 0,
    }
    return PreferenceSettings(**(chosen | changes))
