"""Every recipe of a supervised run is valid, and takes two steps on a tiny base of its family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guardrail_training import sft
from guardrail_training.recipe import SHIPPED, read_recipe
from guardrail_training.sft import SftSettings

RECIPES = SHIPPED / "sft"
PUBLISHED = (
    "t5-paradetox",
    "phi2-lora",
    "bloom-lora",
    "alpaca-8bit",
    "t5-small-dialogsum-qlora",
    "flan-t5-dialogsum",
)
NAMES = (
    "smollm2-paradetox",
    "smollm2-paradetox-pilot",
    "smollm2-detox",
    *PUBLISHED,
    *(f"{name}-cpu" for name in PUBLISHED),
)


def family(settings: SftSettings) -> str:
    """The tiny base that stands in for a recipe's."""
    return next((name for name in ("t5", "phi", "bloom") if name in settings.base), "llama")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_takes_two_steps(
    name: str, bases: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = read_recipe(RECIPES / f"{name}.toml", settings=SftSettings, overrides={})
    rows = [
        {whole.source: " ".join(["a0", f"b{row}"] * (whole.min_characters // 6 + 2)), whole.target: "c1 c2"}
        for row in range(4)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {
        "base": str(bases[family(whole)]),
        "data": str(tmp_path),
        "out": str(tmp_path / "run"),
        "train": "rows.jsonl",
        "dev": whole.dev and "rows.jsonl",
        "share": 1.0,
        "passes": 2,
        "max_steps": 2,
        "batch_size": min(whole.batch_size, 3),
    }
    settings = read_recipe(RECIPES / f"{name}.toml", settings=SftSettings, overrides=small)

    report = sft.run(settings)

    assert (report.step, report.finished) == (2, True)
    assert (tmp_path / "run" / "step-2" / "manifest.json").is_file()
    assert "trainable parameters: " in capfd.readouterr().err


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_twin_keeps_what_the_recipe_is_about(name: str) -> None:
    recipe, twin = (
        read_recipe(RECIPES / f"{each}.toml", settings=SftSettings, overrides={})
        for each in (name, f"{name}-cpu")
    )

    kept = ("tuning", "quantisation", "optimizer", "rank", "alpha", "dropout", "train", "source", "target")
    assert [getattr(recipe, key) for key in kept] == [getattr(twin, key) for key in kept]
    assert recipe.base != twin.base


@pytest.mark.parametrize("name", [name for name in NAMES if "t5" in name])
def test_a_prompt_for_t5_ends_with_its_end_of_text_token(name: str) -> None:
    settings = read_recipe(RECIPES / f"{name}.toml", settings=SftSettings, overrides={})

    assert "t5" not in settings.base or settings.template.endswith("</s>")
