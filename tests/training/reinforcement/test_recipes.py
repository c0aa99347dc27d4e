"""Every recipe of a reinforcement run is valid, and takes a step on a tiny base of its family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.manifest import Template
from guardrail_training import modeling
from guardrail_training.recipe import SHIPPED, read_recipe
from guardrail_training.reinforcement import ppo
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Reward, named
from guardrail_training.rewards.formula import TERMS, read_formula

ROOT = Path(__file__).parents[3]
RECIPES = sorted((SHIPPED / "ppo").glob("*.toml"))


def stand_in(name: str) -> Any:
    """A term that takes any settings and knows no model."""

    def term(*, model: str = "", **settings: Any) -> Reward:
        assert settings.keys() <= {"label", "output", "over"}
        return named(name, lambda answers: [len(answer.response) / 10 for answer in answers])

    return term


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_takes_a_step(recipe: Path, t5_base: Path, llama_base: Path, tmp_path: Path) -> None:
    whole = read_recipe(recipe, settings=PpoSettings, overrides={})
    base = t5_base if "t5" in whole.base else llama_base
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({whole.field: " ".join(["a0"] * words)}) + "\n" for words in range(70, 140, 10))
    )
    small = {
        "base": str(base),
        "data": str(tmp_path),
        "out": str(tmp_path / "run"),
        "prompts": "prompts.jsonl",
        "steps": 1,
        "batch_size": 2,
        "minibatch_size": 2,
        "response_tokens": 4,
        "dtype": "float32",
        "template": whole.template or "a0 {text} a1",
    }
    if whole.min_limit:
        small["min_limit"] = 2
    settings = read_recipe(recipe, settings=PpoSettings, overrides=small)

    reward = read_formula(settings.reward, terms={name: stand_in(name) for name in TERMS})
    report = ppo.run(settings, reward=reward)

    assert report.finished
    layers = modeling.load_base(base, dtype=torch.float32).named_modules()
    assert set(settings.targets) <= {name.rpartition(".")[2] for name, _ in layers} | {"all-linear"}
    assert (tmp_path / "run" / "step-1" / "adapter_model.safetensors").is_file()


def test_there_are_recipes_for_the_rewriter_and_both_published_systems() -> None:
    names = {recipe.stem for recipe in RECIPES}

    assert names >= {"ppo-rewriter", "ppo-flan-t5-dialogsum", "ppo-t5-small-dialogsum", "ppo-dialogsum"}


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.stem.endswith("dialogsum")], ids=lambda r: r.stem)
def test_a_published_system_s_updates_end_at_no_kl_and_clip_no_gradient(recipe: Path) -> None:
    settings = read_recipe(recipe, settings=PpoSettings, overrides={})

    assert (settings.target_kl, settings.max_grad_norm) == (0.0, 0.0)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if "t5" in r.stem], ids=lambda path: path.stem)
def test_a_prompt_for_t5_ends_with_its_end_of_text_token(recipe: Path) -> None:
    template = read_recipe(recipe, settings=PpoSettings, overrides={}).template

    assert Template(template or "").literal.endswith("</s>")
