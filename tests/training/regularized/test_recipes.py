"""Every recipe of a regularized run is valid and finishes an iteration on the tiny base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail_training.recipe import SHIPPED, read_recipe
from guardrail_training.regularized import trainer
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.rewards.algebra import named
from tests.training.reinforcement.conftest import WORDS, write_base

ROOT = Path(__file__).parents[3]
RECIPES = sorted((SHIPPED / "regularized").glob("*.toml"))


@pytest.fixture(scope="module")
def falcon_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import FalconConfig, FalconForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = FalconConfig(vocab_size=3 + len(WORDS), eos_token_id=1, bos_token_id=1, **sizes)
    return write_base(tmp_path_factory.mktemp("falcon"), FalconForCausalLM(config))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_finishes_an_iteration(
    recipe: Path, llama_base: Path, falcon_base: Path, tmp_path: Path
) -> None:
    whole = read_recipe(recipe, settings=RegularizedSettings, overrides={})
    pairs = [{"toxic": f"d{row} a1", "neutral": [f"a{row} a1"]} for row in range(8)]
    lists = [{"text": "\n".join(f"- {WORDS[row + line]}" for line in range(9))} for row in range(8)]
    rows = pairs if whole.template else lists
    (tmp_path / "guided.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "plain.txt").write_text(" ".join(WORDS * 20))
    small: dict[str, Any] = {
        "base": str(falcon_base if "falcon" in recipe.stem else llama_base),
        "data": str(tmp_path),
        "out": str(tmp_path / "run"),
        "guided": "guided.jsonl",
        "field": "text",
        "general": "plain.txt" if whole.general else "",
        "iterations": 1,
        "steps": 1,
        "batch_size": 2,
        "prompts": 2,
        "first_prompts": 5,
        "response_tokens": 4,
        "candidates": 16,
        "auxiliary_hidden": 16,
        "auxiliary_steps": 1,
        "first_auxiliary_steps": 1,
        "auxiliary_batch": 2,
        "min_auc": 0.0,
        "dtype": "float32",
    }
    settings = read_recipe(recipe, settings=RegularizedSettings, overrides=small)
    length = named("length", lambda answers: [len(answer.response) % 7 / 6 for answer in answers])

    assert trainer.run(settings, reward=length).finished


def test_there_are_recipes_for_both_published_models_and_the_rewriter() -> None:
    names = {recipe.stem for recipe in RECIPES}

    assert names == {
        "falcon-7b-regularized",
        "llama-7b-regularized",
        "rewriter-regularized",
        "toxigen-regularized",
    }
