from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail_training import sft
from guardrail_training.cli import app
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.run import Report
from guardrail_training.settings import Setting
from guardrail_training.sft import SftSettings

RECIPE = 'batch_size = 2\nrank = 2\npasses = 1\nevaluations_per_pass = 1\ndtype = "float32"\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    folder = tmp_path / "paradetox"
    folder.mkdir()
    rows = [{"toxic": "the rude cat", "neutral": ["the cat"]}, {"toxic": "rude mat", "neutral": ["a mat"]}]
    for split in ("train", "dev"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def arguments(recipe: Path, base: Path) -> list[str]:
    folder = recipe.parent
    return [
        "sft",
        "--recipe",
        str(recipe),
        "--base",
        str(base),
        "--data",
        str(folder),
        "--out",
        str(folder / "run"),
    ]


def test_sft_trains_from_a_recipe(recipe: Path, tiny_base: Path) -> None:
    done = CliRunner().invoke(app, [*arguments(recipe, tiny_base), "--set", "passes=2"])

    assert done.exit_code == 0, done.output
    assert "step 2 of 2, dev_loss" in done.output
    assert (recipe.parent / "run/step-2/adapter_model.safetensors").is_file()


def test_a_setting_may_stand_in_for_an_option(recipe: Path, tiny_base: Path) -> None:
    given = arguments(recipe, tiny_base)
    place = given.index("--data")
    given[place : place + 2] = ["--set", f'data="{recipe.parent}"']

    assert CliRunner().invoke(app, given).exit_code == 0


def test_an_unknown_key_is_one_line_that_names_it(recipe: Path, tiny_base: Path) -> None:
    recipe.write_text(RECIPE + "rankk = 3\n")

    done = CliRunner().invoke(app, arguments(recipe, tiny_base))

    assert done.exit_code == 2
    assert "unknown key 'rankk'" in done.output
    assert done.output.count("\n") == 1


def test_a_bad_row_is_one_line_without_its_text(recipe: Path, tiny_base: Path) -> None:
    (recipe.parent / "paradetox/train.jsonl").write_text('{"toxic": "zebra", "neutral": [""]}\n')

    done = CliRunner().invoke(app, arguments(recipe, tiny_base))

    assert done.exit_code == 2
    assert "row 1" in done.output
    assert "zebra" not in done.output


def test_a_missing_base_is_one_line_that_names_the_command(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARDRAIL_CACHE", str(tmp_path))
    done = CliRunner().invoke(app, arguments(recipe, Path("smollm2-135m-instruct")))

    assert done.exit_code == 1
    assert "guardrail models pull" in done.output


def test_a_run_that_a_signal_stopped_ends_with_status_130(
    recipe: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(settings: SftSettings) -> Report:
        return Report(step=1, steps=2, stopped_by="SIGTERM")

    monkeypatch.setattr(sft, "run", stopped)

    done = CliRunner().invoke(app, arguments(recipe, tiny_base))

    assert done.exit_code == 130
    assert "stopped by SIGTERM; the same command continues" in done.output


def test_every_command_is_listed() -> None:
    done = CliRunner().invoke(app, ["--help"])

    assert done.exit_code == 0
    assert all(command in done.output for command in ("sft", "export", "evaluate"))


def test_tracebacks_show_no_locals() -> None:
    assert app.pretty_exceptions_show_locals is False


TRAINERS = {
    "sft": SftSettings,
    "ppo": PpoSettings,
    "preference": PreferenceSettings,
    "regularized": RegularizedSettings,
}


@pytest.mark.parametrize("command", TRAINERS)
def test_every_setting_is_an_option_with_its_default_and_range(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})

    assert done.exit_code == 0
    for one in fields(TRAINERS[command]):
        known: Setting = one.metadata["setting"]
        line = next(text for text in done.output.splitlines() if f"--{one.name.replace('_', '-')} " in text)
        assert known.help in line
        assert known.bounds in line
        assert "[default: (" in line


def test_an_option_lies_over_set_and_that_over_the_recipe(recipe: Path, tiny_base: Path) -> None:
    given = arguments(recipe, tiny_base)
    changes = ["--set", "rank=3", "--set", "alpha=5", "--rank", "4", "--targets", "q_proj", "--no-streaming"]

    done = CliRunner().invoke(app, [*given, *changes])

    assert done.exit_code == 0, done.output
    settings = json.loads((recipe.parent / "run/run.json").read_text())["settings"]
    assert (settings["rank"], settings["alpha"], settings["targets"]) == (4, 5, ["q_proj"])
    assert settings["batch_size"] == 2


def test_an_option_outside_its_range_is_one_line_that_names_it(recipe: Path, tiny_base: Path) -> None:
    done = CliRunner().invoke(app, [*arguments(recipe, tiny_base), "--rank", "0"])

    assert done.exit_code == 2
    assert "rank must be at least 1, got 0" in done.output


def test_recipes_are_listed_shown_and_copied(tmp_path: Path) -> None:
    run = CliRunner().invoke

    assert "dpo-rewriter" in run(app, ["recipes", "list"]).output
    assert 'name = "smollm2-paradetox-dpo"' in run(app, ["recipes", "show", "dpo-rewriter"]).output
    assert run(app, ["recipes", "copy", "dpo-rewriter", str(tmp_path / "own.toml")]).exit_code == 0
    assert (tmp_path / "own.toml").read_text() == run(app, ["recipes", "show", "dpo-rewriter"]).output
    assert "did you mean 'dpo-rewriter'" in run(app, ["recipes", "show", "dpo-rewrite"]).output


def test_help_needs_no_torch() -> None:
    code = "import sys, guardrail_training.cli; assert 'torch' not in sys.modules"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
