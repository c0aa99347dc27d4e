"""Whole runs on tiny bases of both families."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from guardrail.errors import ConfigError, ManifestError
from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import run as skeleton
from guardrail_training.checkpoint import FILENAME
from guardrail_training.cli import app
from guardrail_training.evaluation.best_checkpoint import step_folders
from guardrail_training.preference import candidates, tuning
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.recipe import SHIPPED, read_recipe
from guardrail_training.records import TrainingRowError
from guardrail_training.rewards.algebra import named
from guardrail_training.run import DivergedError, Report
from tests.training import watching
from tests.training.launching import launch
from tests.training.preference.conftest import REWARD, small_settings, words, write_rows, write_start
from tests.training.watching import interrupting, metrics

RECIPES = sorted((SHIPPED / "preference").glob("*.toml"))
KNOWN_NAMES = {
    "loss",
    "nll_loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "lr",
    "grad_norm",
}


def interrupted(
    settings: PreferenceSettings, monkeypatch: pytest.MonkeyPatch, *, at: int, act: Any
) -> Report:
    with interrupting(skeleton, monkeypatch, at=at, act=act):
        return tuning.run(settings, reward=REWARD)


def assert_same_run(one: PreferenceSettings, other: PreferenceSettings) -> None:
    assert (Path(one.out) / "pairs.jsonl").read_bytes() == (Path(other.out) / "pairs.jsonl").read_bytes()
    watching.assert_same_run(one, other)


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_a_run_leaves_pairs_adapters_and_metrics_under_known_names(
    settings_of_each: PreferenceSettings, base: Path, method: str
) -> None:
    settings = replace(settings_of_each, method=method)

    report = tuning.run(settings, reward=REWARD)

    out = Path(settings.out)
    assert (report.metrics["sentences"], report.stopped_by) == (8, None)
    assert report.finished
    assert len((out / "pairs.jsonl").read_text().splitlines()) == 8
    assert [row["step"] for row in metrics(settings)] == list(range(1, report.steps + 1))
    assert set(metrics(settings)[0]) >= KNOWN_NAMES
    assert metrics(settings)[-1]["loss"] == report.metrics["loss"]
    folders = step_folders(out)
    assert folders[0].name == "step-2"
    assert folders[-1].name == f"step-{report.steps}"
    read_adapter(folders[-1])
    manifest = Manifest.load(folders[-1])
    manifest.check_base(sha256_of(base / "model.safetensors"))
    assert manifest.template == read_adapter(settings.adapter or "").template.literal
    assert manifest.metrics["step"] == report.steps
    assert manifest.settings["reward"] == "words"
    assert str(base) not in (folders[-1] / "manifest.json").read_text()
    assert json.loads((out / "run.json").read_text())["pairs"] == report.metrics["pairs"]
    assert list(out.glob("events.out.tfevents.*"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dpo_begins_at_log_2_with_margins_of_exactly_0(
    settings_of_each: PreferenceSettings, dtype: str
) -> None:
    tuning.run(replace(settings_of_each, dtype=dtype, passes=1, sentences=5), reward=REWARD)

    first = metrics(settings_of_each)[0]
    assert first["loss"] == pytest.approx(0.6931472, abs=1e-7)
    assert (first["rewards/chosen"], first["rewards/rejected"], first["rewards/margins"]) == (0, 0, 0)


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_training_moves_the_chosen_away_from_the_rejected(settings: PreferenceSettings, method: str) -> None:
    long = replace(settings, method=method, passes=8, sentences=12, keep_every=100)

    tuning.run(long, reward=REWARD)

    first, last = metrics(long)[0], metrics(long)[-1]
    assert last["logps/chosen"] - last["logps/rejected"] > first["logps/chosen"] - first["logps/rejected"]
    assert sum(row["rewards/accuracies"] for row in metrics(long)[-4:]) / 4 > 0.9


def test_the_result_has_the_rank_and_size_of_the_adapter_it_started_from(
    settings: PreferenceSettings, start: Path
) -> None:
    tuning.run(settings, reward=REWARD)

    last = step_folders(settings.out)[-1]
    weights = "adapter_model.safetensors"
    assert (last / weights).stat().st_size == (start / weights).stat().st_size
    assert (last / "adapter_config.json").read_bytes() == (start / "adapter_config.json").read_bytes()
    assert sha256_of(last / weights) != sha256_of(start / weights)


@pytest.mark.parametrize("method", ["dpo", "orpo"])
def test_a_run_that_a_signal_stopped_between_steps_continues_to_the_bit(
    settings_of_each: PreferenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    straight, broken = (
        replace(settings_of_each, method=method, out=str(tmp_path / name)) for name in ("straight", "broken")
    )
    tuning.run(straight, reward=REWARD)

    report = interrupted(broken, monkeypatch, at=1, act=lambda: signal.raise_signal(signal.SIGINT))

    assert (report.step, report.stopped_by, report.finished) == (1, "SIGINT", False)
    torch.rand(7)  # what else happened meanwhile plays no part
    assert tuning.run(broken, reward=REWARD).finished
    assert_same_run(straight, broken)


def test_a_killed_run_continues_from_its_last_checkpoint_to_the_bit(
    settings: PreferenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (replace(settings, out=str(tmp_path / name)) for name in ("straight", "broken"))
    tuning.run(straight, reward=REWARD)

    def die() -> None:
        raise KeyError("the machine went away")

    with pytest.raises(KeyError):
        interrupted(broken, monkeypatch, at=3, act=die)

    assert tuning.run(broken, reward=REWARD).finished
    assert_same_run(straight, broken)


def test_a_run_that_was_stopped_while_it_drew_candidates_continues_to_the_bit(
    settings: PreferenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (replace(settings, out=str(tmp_path / name)) for name in ("straight", "broken"))
    tuning.run(straight, reward=REWARD)
    append = candidates.append_comparisons

    def append_and_stop(*arguments: Any, **options: Any) -> None:
        append(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(candidates, "append_comparisons", append_and_stop)
        report = tuning.run(broken, reward=REWARD)

    assert report.metrics == {"sentences": 3, "pairs": 0}
    assert (report.step, report.finished) == (0, False)
    assert report.stopped_by == "SIGTERM"
    assert not (Path(broken.out) / FILENAME).exists()
    assert tuning.run(broken, reward=REWARD).finished
    assert_same_run(straight, broken)


def test_a_run_that_was_stopped_while_it_read_the_reference_takes_no_step(
    settings: PreferenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (replace(settings, out=str(tmp_path / name)) for name in ("straight", "broken"))
    tuning.run(straight, reward=REWARD)
    read = tuning.read_pairs

    def read_and_stop(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return read(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "read_pairs", read_and_stop)
        report = tuning.run(broken, reward=REWARD)

    assert (report.step, report.finished, report.stopped_by) == (0, False, "SIGINT")
    assert report.steps > 0
    tuning.run(broken, reward=REWARD)
    assert_same_run(straight, broken)


def test_the_reference_is_read_once(settings: PreferenceSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(settings, monkeypatch, at=1, act=lambda: signal.raise_signal(signal.SIGINT))
    read = tuning.read_pairs

    def with_gradient(*arguments: Any, **options: Any) -> Any:
        assert torch.is_grad_enabled(), "the reference is on disk"
        return read(*arguments, **options)

    monkeypatch.setattr(tuning, "read_pairs", with_gradient)
    assert tuning.run(settings, reward=REWARD).finished


def test_the_pairs_of_one_run_serve_another_method(
    settings: PreferenceSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning.run(settings, reward=REWARD)
    other = replace(settings, method="orpo", margin=0.2, sentences=6, out=str(tmp_path / "orpo"))
    Path(other.out).mkdir()
    (Path(other.out) / "pairs.jsonl").write_bytes((Path(settings.out) / "pairs.jsonl").read_bytes())

    def unexpected(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("the candidates are on disk")

    monkeypatch.setattr(candidates, "compare", unexpected)
    report = tuning.run(other, reward=REWARD)

    assert (report.metrics["sentences"], report.finished) == (6, True)


def test_more_sentences_are_added_to_those_that_are_there(
    settings: PreferenceSettings, tmp_path: Path
) -> None:
    tuning.run(replace(settings, sentences=4), reward=REWARD)
    before = (Path(settings.out) / "pairs.jsonl").read_bytes()
    larger = replace(settings, out=str(tmp_path / "larger"))
    Path(larger.out).mkdir()
    (Path(larger.out) / "pairs.jsonl").write_bytes(before)

    assert tuning.run(larger, reward=REWARD).metrics["sentences"] == 8

    after = (Path(larger.out) / "pairs.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(after.splitlines()) == 8


def test_a_finished_run_is_not_trained_again(settings: PreferenceSettings) -> None:
    first = tuning.run(settings, reward=REWARD)
    before = metrics(settings)

    again = tuning.run(settings, reward=REWARD)

    assert again == first
    assert metrics(settings) == before


def test_a_gradient_that_is_not_finite_stops_the_run_before_its_step(
    settings: PreferenceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = tuning.dpo_objective

    def broken(*arguments: Any, **options: Any) -> Any:
        loss, metrics = objective(*arguments, **options)
        return loss * float("nan"), metrics

    monkeypatch.setattr(tuning, "dpo_objective", broken)
    with pytest.raises(DivergedError, match=r"step 1: the gradient is not finite; lower learning_rate"):
        tuning.run(settings, reward=REWARD)

    assert metrics(settings) == []
    assert not (Path(settings.out) / FILENAME).exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "ipo"}, "method must be one of dpo, orpo, got 'ipo'"),
        ({"sentences": 0}, "sentences must be at least 1"),
        ({"candidates": 0}, "candidates must be at least 1, or 0 with references = true"),
        ({"margin": 0.0}, "margin must be positive"),
        ({"beta": -1.0}, "beta must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"nll_weight": -1.0}, "nll_weight must not be negative"),
        ({"nll_weight": 0.5, "method": "orpo"}, "nll_weight belongs to dpo"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PreferenceSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_tokens": 17}, r"row \d+: prompt and response may have \d+ tokens, more than max_tokens = 17"),
        ({"data": "absent"}, "not found"),
        ({"adapter": "absent"}, "no manifest.json in absent"),
        ({"reward": "clan"}, "unknown term 'clan'"),
    ],
)
def test_what_cannot_work_is_one_clear_error_before_the_first_candidate(
    settings: PreferenceSettings, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises((ConfigError, ManifestError, TrainingRowError), match=said):
        tuning.run(replace(settings, **changes), reward=None if "reward" in changes else REWARD)

    assert not Path(settings.out).exists()


@pytest.mark.slow
def test_several_processes_are_refused_before_they_write_one_folder(settings: PreferenceSettings) -> None:
    with pytest.raises(AssertionError, match="preference tuning runs in one process, got 2; start one"):
        launch("preference", settings, launcher="torchrun")

    assert not Path(settings.out).exists()


def test_a_judge_in_the_reward_is_refused(settings: PreferenceSettings) -> None:
    with pytest.raises(ConfigError, match="with which results are measured"):
        tuning.run(settings, reward=named("words", words, models=["alt-profanity-check"]))

    assert not Path(settings.out).exists()


def test_an_adapter_for_another_base_is_refused(t5_base: Path, llama_base: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    adapter = write_start(llama_base, tmp_path / "start")

    with pytest.raises(ManifestError, match="was trained on base"):
        tuning.run(small_settings(t5_base, adapter, tmp_path), reward=REWARD)

    assert not (tmp_path / "run").exists()


def test_no_pair_at_all_is_an_error_before_the_first_step(settings: PreferenceSettings) -> None:
    alike = named("alike", lambda answers: [0.5 for _ in answers])

    with pytest.raises(
        TrainingRowError, match=r"no pair to train on: of 8 sentences .* 0\.000; lower margin"
    ):
        tuning.run(settings, reward=alike)

    assert not (Path(settings.out) / "metrics.jsonl").exists()


def test_candidates_of_other_settings_are_refused_before_a_model_reads_anything(
    settings: PreferenceSettings,
) -> None:
    tuning.run(settings, reward=REWARD)

    for changes in ({"temperature": 0.5}, {"candidates": 3}, {"seed": 1}, {"response_tokens": 8}):
        with pytest.raises(ConfigError, match=r"pairs\.jsonl row 1 was made with other settings"):
            tuning.run(replace(settings, **changes), reward=REWARD)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("length(least=1, most=2)", "length(least=1, most=9)"),
        ("clean(output='logit')", "clean(label='threat', output='logit')"),
        ("clean(output='logit')", "clean"),
    ],
)
def test_candidates_that_a_reward_of_other_settings_ranked_are_refused(
    settings: PreferenceSettings, before: str, after: str
) -> None:
    tuning.run(replace(settings, reward=before, margin=1e-6, passes=1))

    with pytest.raises(ConfigError, match=r"pairs\.jsonl row 1 was made with other settings"):
        tuning.run(replace(settings, reward=after, margin=1e-6, passes=1))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_takes_a_step(recipe: Path, settings: PreferenceSettings) -> None:
    small = {
        key: getattr(settings, key)
        for key in ("base", "adapter", "data", "out", "sentences", "candidates", "response_tokens", "margin")
    }
    chosen = read_recipe(recipe, settings=PreferenceSettings, overrides=small | {"references": True})

    report = tuning.run(replace(chosen, dtype="float32", passes=1), reward=REWARD)

    assert report.finished
    assert chosen.method == recipe.stem.removesuffix("-rewriter")


def test_there_is_a_recipe_for_each_method() -> None:
    assert [path.stem for path in RECIPES] == ["dpo-rewriter", "orpo-rewriter"]


def test_the_command_tunes_from_a_recipe(llama_base: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    start = write_start(llama_base, tmp_path / "start")
    lines = [
        f"adapter = {json.dumps(str(start))}",
        'reward = "length(least=1, most=2) - 0.5 * copy"',
        "sentences = 6\ncandidates = 4\nresponse_tokens = 16\nreferences = true\nmargin = 0.01\npasses = 1",
        'dtype = "float32"',
    ]
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    options = ["--base", str(llama_base), "--data", str(tmp_path), "--out", str(tmp_path / "run")]

    done = CliRunner().invoke(app, ["preference", "--recipe", str(tmp_path / "recipe.toml"), *options])

    assert done.exit_code == 0, done.output
    assert "sentences 6, pairs " in done.output
    assert ", loss 0.69" in done.output
    assert "trainable parameters: " in done.output


def test_a_command_that_a_signal_stopped_ends_with_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(settings: PreferenceSettings) -> Report:
        return Report(step=0, steps=0, stopped_by="SIGTERM")

    monkeypatch.setattr(tuning, "run", stopped)

    done = CliRunner().invoke(app, ["preference"])

    assert done.exit_code == 130
    assert "stopped by SIGTERM; the same command continues" in done.output


def test_own_pairs_are_learned_without_candidates_or_reward(
    settings: PreferenceSettings, tmp_path: Path
) -> None:
    path = tmp_path / "own.csv"
    path.write_text("prompt,chosen,rejected\nrude cat,the cat,cat rude\nrude mat,the mat,mat rude\n")
    own = replace(settings, pairs=str(path), data=str(tmp_path / "absent"), reward="nothing of the kind")

    report = tuning.run(own)

    assert report.finished
    assert report.metrics["pairs"] == 2
    assert not (Path(own.out) / "pairs.jsonl").exists()
    step = max(Path(own.out).glob("step-*"))
    (data,) = json.loads((step / "manifest.json").read_text())["data"]
    assert (data["name"], data["rows"]) == ("own.csv", 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("rude cat,,cat", "row 2: field chosen must be a text"),
        ("rude cat,the cat,the cat", "row 2: chosen and rejected are the same"),
        ("rude cat,the cat", "row 2"),
    ],
)
def test_a_bad_pair_is_named_before_any_model(
    settings: PreferenceSettings, tmp_path: Path, row: str, message: str
) -> None:
    path = tmp_path / "own.csv"
    path.write_text(f"prompt,chosen,rejected\n{row}\n")

    with pytest.raises(TrainingRowError, match=message):
        tuning.run(replace(settings, pairs=str(path)))
