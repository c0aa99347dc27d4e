"""Tiny random models of both families, and runs that fit them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail_training.settings import ALL_LINEAR
from guardrail_training.sft import SftSettings
from tests.training.reinforcement.conftest import T5_LAYERS, WORDS, tiny_t5, write_base
from tests.training.reinforcement.test_families import bart, bloom, phi

LAYERS = {
    "llama": ALL_LINEAR,
    "bloom": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "phi": ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"),
    "t5": T5_LAYERS,
    "bart": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}
CAUSAL = ("llama", "bloom", "phi")


def wide_t5() -> Any:
    """As wide as a block of 4-bit values."""
    return tiny_t5(d_model=64, d_kv=16, d_ff=128)


def wide_llama() -> Any:
    """As wide as a block of 4-bit values."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    config = LlamaConfig(vocab_size=3 + len(WORDS), initializer_range=0.2, **sizes, **ends)
    return LlamaForCausalLM(config)


MODELS = {"llama": wide_llama, "bloom": bloom, "phi": phi, "t5": wide_t5, "bart": bart}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads, much slower where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base folder of each architecture."""
    return {
        name: write_base(tmp_path_factory.mktemp(name), model().float()) for name, model in MODELS.items()
    }


def swapped(rows: int = 8) -> list[dict[str, str]]:
    """Pairs of two words and the same two in the other order."""
    words = [(WORDS[3 * row % len(WORDS)], WORDS[(5 * row + 1) % len(WORDS)]) for row in range(rows)]
    return [{"question": f"{one} {two}", "answer": f"{two} {one}"} for one, two in words]


def small_run(name: str, base: Path, folder: Path, **changes: Any) -> SftSettings:
    """Two passes in batches of four over eight pairs: four steps."""
    folder.mkdir(exist_ok=True)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in swapped()))
    chosen: dict[str, Any] = {
        "base": str(base),
        "out": str(folder / "run"),
        "data": str(folder),
        "train": "pairs.jsonl",
        "dev": "pairs.jsonl",
        "source": "question",
        "target": "answer",
        "template": "a0 {text} a1" if name in CAUSAL else "a0 {text} </s>",
        "batch_size": 4,
        "rank": 4,
        "alpha": 8,
        "learning_rate": 1e-2,
        "targets": LAYERS[name],
        "dtype": "float32",
        "evaluations_per_pass": 1,
        "keep_models": 0,
        "licence": "Apache-2.0",
    }
    return SftSettings(**(chosen | changes))
