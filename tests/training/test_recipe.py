from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from guardrail.errors import ConfigError, UsageError
from guardrail.models.files import read_toml
from guardrail_training.evaluation.generation.settings import GenerationSettings
from guardrail_training.options import with_settings
from guardrail_training.recipe import (
    copy_recipe,
    parse_changes,
    read_recipe,
    recipe_file,
    shipped_recipes,
)
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Reward, named
from guardrail_training.rewards.formula import TERMS, read_formula
from guardrail_training.settings import former_names
from guardrail_training.sft import SftSettings
from tests.training.preference import test_tuning as preference
from tests.training.regularized import test_recipes as regularized
from tests.training.reinforcement import test_recipes as reinforcement
from tests.training.supervised import test_recipes as supervised

EVERY = [recipe.name for recipe in shipped_recipes()]
REWARDED = [name for name in EVERY if "reward" in read_toml(recipe_file(name))]


@dataclass(frozen=True)
class Run:
    base: Path
    rate: float = 0.5
    steps: int | None = None
    quick: bool = False
    layers: tuple[str, ...] = ()
    name: str = "run"


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_recipe_fills_the_settings_and_overrides_lie_over_it(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'base = "a"\nrate = 1\nlayers = ["q", "k"]\nsteps = 3\nquick = true')

    settings = read_recipe(path, settings=Run, overrides={"base": "b", "steps": None, "name": "other"})

    assert settings == Run(base=Path("b"), rate=1.0, steps=3, quick=True, layers=("q", "k"), name="other")
    assert isinstance(settings.rate, float)


def test_an_unknown_key_is_an_error_that_names_it_and_the_known_ones(tmp_path: Path) -> None:
    path = recipe(tmp_path, 'base = "a"\nlearning_rat = 1')

    with pytest.raises(
        ConfigError, match=r"recipe\.toml: unknown key 'learning_rat'; known are base, layers"
    ):
        read_recipe(path, settings=Run, overrides={})


FORMER = [
    (kind, former, present)
    for kind in (SftSettings, PpoSettings, RegularizedSettings, GenerationSettings)
    for former, present in former_names(kind).items()
]


@pytest.mark.parametrize(("kind", "former", "present"), FORMER)
def test_a_former_name_of_a_key_is_read_with_a_warning_that_gives_the_present_one(
    tmp_path: Path, kind: type[Any], former: str, present: str
) -> None:
    path = recipe(tmp_path, f"{former} = 1")
    required = {"run": "r", "prompts": "p", "field": "f"} if kind is GenerationSettings else {}

    with pytest.warns(FutureWarning, match=rf"recipe\.toml: {former} is now called {present}"):
        settings = read_recipe(path, settings=kind, overrides=required)

    assert getattr(settings, present) == 1


def test_an_override_lies_over_a_recipe_under_either_name(tmp_path: Path) -> None:
    path = recipe(tmp_path, "least_characters = 1")

    with pytest.warns(FutureWarning, match="least_characters"):
        settings = read_recipe(path, settings=SftSettings, overrides={"min_characters": 5})
    assert settings.min_characters == 5
    path.write_text("min_characters = 1", encoding="utf-8")
    with pytest.warns(FutureWarning, match="command line: least_characters"):
        settings = read_recipe(path, settings=SftSettings, overrides={"least_characters": 7})
    assert settings.min_characters == 7


def test_a_key_under_both_of_its_names_is_an_error(tmp_path: Path) -> None:
    path = recipe(tmp_path, "least_characters = 1\nmin_characters = 1")

    with pytest.raises(ConfigError, match="least_characters is the former name of min_characters"):
        read_recipe(path, settings=SftSettings, overrides={})


def test_the_option_by_a_former_name_is_understood_and_not_shown() -> None:
    seen: list[PpoSettings] = []
    app = typer.Typer()
    app.command()(with_settings(PpoSettings)(seen.append))

    with pytest.warns(FutureWarning, match="shortest_limit is now called min_limit"):
        done = CliRunner().invoke(app, ["--shortest-limit", "9"], catch_exceptions=False)
    assert (done.exit_code, [settings.min_limit for settings in seen]) == (0, [9])
    assert "shortest" not in CliRunner().invoke(app, ["--help"]).output


def test_no_shipped_recipe_uses_a_former_name() -> None:
    formers = {former for _, former, _ in FORMER}

    assert not [name for name in EVERY if formers & read_toml(recipe_file(name)).keys()]


def test_a_new_name_leaves_the_fingerprint_of_a_run_as_it_was() -> None:
    assert SftSettings(min_characters=3).decisive()["least_characters"] == 3
    assert SftSettings(min_characters=3).described()["min_characters"] == 3


def test_a_missing_key_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match="command line: missing key base"):
        read_recipe(None, settings=Run, overrides={})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("rate = 'fast'", "rate must be a number, got str"),
        ("steps = 1.5", "steps must be a whole number or 'none', got 1.5"),
        ("steps = true", "steps must be a whole number or 'none', got True"),
        ("quick = 1", "quick must be true or false, got 1"),
        ("layers = 'q'", "layers must be"),
        ("layers = [1]", "layers must be"),
        ("name = 3", "name must be a string, got 3"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error_that_names_key_and_type(
    tmp_path: Path, line: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_recipe(recipe(tmp_path, f"base = 'a'\n{line}"), settings=Run, overrides={})


def test_a_recipe_that_is_missing_or_not_toml_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_recipe(tmp_path / "none.toml", settings=Run, overrides={})
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_recipe(recipe(tmp_path, "base = "), settings=Run, overrides={})


def test_changes_are_read_as_toml_and_as_strings_where_they_are_none() -> None:
    parsed = parse_changes(["a=1", "b=0.5", "c=true", 'd=["x"]', "e=runs/one", "f=x=y"])

    assert parsed == {"a": 1, "b": 0.5, "c": True, "d": ["x"], "e": "runs/one", "f": "x=y"}
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_changes(["quick"])


@pytest.mark.parametrize(
    ("name", "share", "passes"), [("smollm2-paradetox", 1.0, 2), ("smollm2-paradetox-pilot", 0.5, 1)]
)
def test_the_rewriters_recipes_are_valid(name: str, share: float, passes: int) -> None:
    settings = read_recipe(name, settings=SftSettings, overrides={"base": "b", "out": "o"})

    assert (settings.name, settings.share, settings.passes) == (name, share, passes)
    assert (settings.rank, settings.alpha, settings.batch_size, settings.learning_rate) == (16, 32, 16, 1e-3)


def test_every_recipe_is_run_by_the_tests_of_exactly_one_trainer() -> None:
    run = [path.stem for tests in (reinforcement, preference, regularized) for path in tests.RECIPES]

    assert sorted([*run, *supervised.NAMES]) == sorted(EVERY)


def stand_in(name: str) -> Callable[..., Reward]:
    """A term that takes the settings of the real one and loads no model."""

    @functools.wraps(TERMS[name])
    def term(**settings: Any) -> Reward:
        return named(settings.get("name", name), lambda answers: [0.5] * len(answers))

    return term


@pytest.mark.parametrize("name", REWARDED)
def test_a_recipe_s_reward_is_a_formula_of_known_terms_and_settings(name: str) -> None:
    formula = read_toml(recipe_file(name))["reward"]
    terms = {term: stand_in(term) for term in TERMS}

    reward = read_formula(formula, terms=terms)

    assert reward.scores.keys() <= TERMS.keys()
    assert read_formula(reward.formula, terms=terms).formula == reward.formula


@pytest.mark.parametrize("formula", ["clean(lable='toxicity')", "length", "classifier('folder')", "clan"])
def test_the_stand_ins_refuse_what_the_terms_would(formula: str) -> None:
    with pytest.raises(ConfigError, match="term"):
        read_formula(formula, terms={term: stand_in(term) for term in TERMS})


def test_a_recipe_is_known_by_its_name_and_belongs_to_one_trainer() -> None:
    assert len({recipe.name for recipe in shipped_recipes()}) == len(EVERY)
    assert recipe_file("dpo-rewriter").parent.name == "preference"
    assert all(recipe.purpose for recipe in shipped_recipes())


def test_an_unknown_name_of_a_recipe_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'dpo-rewiter'; did you mean 'dpo-rewriter'"):
        read_recipe("dpo-rewiter", settings=Run, overrides={})


def test_a_copy_is_a_recipe_of_your_own_and_never_replaces_a_file(tmp_path: Path) -> None:
    path = copy_recipe("smollm2-paradetox", tmp_path / "mine.toml")

    assert read_recipe(path, settings=SftSettings, overrides={}).passes == 2
    with pytest.raises(UsageError, match=r"mine\.toml exists"):
        copy_recipe("t5-paradetox", path)
