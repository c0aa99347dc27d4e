"""Whole runs on tiny bases of both families."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from guardrail.errors import ConfigError, ManifestError, ModelMissingError, UsageError
from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import run as skeleton
from guardrail_training.cli import app
from guardrail_training.records import TrainingRowError
from guardrail_training.reinforcement import ppo
from guardrail_training.reinforcement.ppo import PpoSettings
from guardrail_training.rewards.algebra import Answer, named
from guardrail_training.run import Report
from tests.training.reinforcement.conftest import WORDS, layers_of, small_settings
from tests.training.watching import assert_same_run, checkpoint, interrupting, metrics

KNOWN_NAMES = {
    "objective/kl",
    "objective/kl_coef",
    "objective/entropy",
    "ppo/mean_scores",
    "ppo/mean_non_score_reward",
    "ppo/std_scores",
    "ppo/loss/policy",
    "ppo/loss/value",
    "ppo/loss/total",
    "ppo/policy/entropy",
    "ppo/policy/approxkl",
    "ppo/policy/policykl",
    "ppo/policy/clipfrac",
    "ppo/policy/advantages_mean",
    "ppo/policy/ratio",
    "ppo/returns/mean",
    "ppo/returns/var",
    "ppo/val/vpred",
    "ppo/val/error",
    "ppo/val/clipfrac",
    "ppo/val/mean",
    "ppo/val/var",
    "ppo/val/var_explained",
    "ppo/learning_rate",
    "tokens/queries_len_mean",
    "tokens/responses_len_mean",
}


def words(answers: Sequence[Answer]) -> list[float]:
    """The share of words from the first half of the vocabulary."""
    return [
        sum(word in WORDS[:16] for word in answer.response.split()) / max(1, len(answer.response.split()))
        for answer in answers
    ]


REWARD = named("words", words)


def interrupted(settings: PpoSettings, monkeypatch: pytest.MonkeyPatch, *, at: int, act: Any) -> Report:
    with interrupting(skeleton, monkeypatch, at=at, act=act):
        return ppo.run(settings, reward=REWARD)


def test_a_run_leaves_adapters_metrics_under_known_names_and_its_circumstances(
    settings: PpoSettings, base: Path
) -> None:
    report = ppo.run(settings, reward=REWARD)

    out = Path(settings.out)
    assert (report.step, report.steps, report.stopped_by, report.finished) == (4, 4, None, True)
    assert [row["step"] for row in metrics(settings)] == [1, 2, 3, 4]
    assert set(metrics(settings)[0]) >= KNOWN_NAMES
    assert metrics(settings)[0]["objective/kl"] == 0
    assert metrics(settings)[-1]["ppo/mean_scores"] == report.metrics["ppo/mean_scores"]
    assert sorted(path.name for path in out.glob("step-*")) == ["step-2", "step-4"]
    facts = json.loads((out / "run.json").read_text())
    assert facts["reward"] == "words"
    assert 0 < facts["trainable_parameters"] < facts["parameters"]
    read_adapter(out / "step-4")
    manifest = Manifest.load(out / "step-4")
    manifest.check_base(sha256_of(base / "model.safetensors"))
    assert manifest.template == settings.template
    assert manifest.metrics["step"] == 4
    assert str(base) not in (out / "step-4" / "manifest.json").read_text()


def test_an_interrupted_run_continues_to_the_bit(
    settings: PpoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = replace(settings, out=str(tmp_path / "straight"), kl_horizon=50)
    broken = replace(settings, out=str(tmp_path / "broken"), kl_horizon=50)
    ppo.run(straight, reward=REWARD)

    report = interrupted(broken, monkeypatch, at=1, act=lambda: signal.raise_signal(signal.SIGINT))

    assert (report.step, report.stopped_by, report.finished) == (1, "SIGINT", False)
    torch.rand(7)  # what else happened meanwhile plays no part
    ppo.run(broken, reward=REWARD)
    assert_same_run(straight, broken)
    assert checkpoint(straight)["control"]["coefficient"] != settings.kl_coefficient


def test_a_run_that_was_killed_between_checkpoints_continues_from_the_last_one(
    settings: PpoSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill() -> None:
        raise Killed

    straight = replace(settings, out=str(tmp_path / "straight"))
    broken = replace(settings, out=str(tmp_path / "broken"))
    ppo.run(straight, reward=REWARD)
    with pytest.raises(Killed):
        interrupted(broken, monkeypatch, at=3, act=kill)

    ppo.run(broken, reward=REWARD)

    assert_same_run(straight, broken)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_the_siblings_run_without_a_value_function(settings: PpoSettings, estimator: str) -> None:
    grouped = replace(settings, estimator=estimator, batch_size=2, samples_per_prompt=4, steps=2)

    ppo.run(grouped, reward=REWARD)

    assert "ppo/loss/value" not in metrics(grouped)[0]
    assert not any(name.startswith("value_head") for name in checkpoint(grouped)["weights"])


def test_a_run_continues_an_adapter_which_is_its_reference(settings: PpoSettings, tmp_path: Path) -> None:
    ppo.run(settings, reward=REWARD)
    start = Path(settings.out) / "step-4"
    longer = replace(settings, adapter=str(start), template=None, out=str(tmp_path / "second"), steps=2)

    ppo.run(longer, reward=REWARD)

    assert metrics(longer)[0]["objective/kl"] == 0
    whole = read_adapter(Path(longer.out) / "step-2")
    assert whole.template.literal == settings.template
    assert {len(factors.down) for factors in whole.layers.values()} == {2 * settings.rank}


def rewritten(base: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a base whose tokenizer_config.json has other entries."""
    folder.mkdir()
    for path in base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / "tokenizer_config.json"
    content = {key: value for key, value in json.loads(path.read_text()).items() if key not in changes}
    path.write_text(json.dumps(content | {key: value for key, value in changes.items() if value is not None}))
    return folder


@pytest.mark.parametrize("token", ["pad_token", "eos_token"])
def test_a_tokenizer_without_padding_or_end_is_refused_before_the_first_step(
    llama_base: Path, tmp_path: Path, token: str
) -> None:
    base = rewritten(llama_base, tmp_path / "llama", **{token: None})

    with pytest.raises(ConfigError, match=f"has no {token}: set it in its tokenizer_config.json"):
        ppo.run(small_settings(base, tmp_path), reward=REWARD)

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": ""}', "row 2: field .text. must be a text, not empty"),
        ('{"text": 3}', "row 2: field .text. must not be int"),
        ('{"other": "a"}', "row 2: missing field .text."),
        ("[1]", "row 2: expected a JSON object"),
        ('{"text": "zebra', "row 2: not JSON"),
    ],
)
def test_a_bad_row_is_an_error_with_its_number_before_the_first_step(
    settings: PpoSettings, tmp_path: Path, line: str, said: str
) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"text": "a0"}\n' + line + "\n")

    with pytest.raises(TrainingRowError, match=said) as caught:
        ppo.run(settings, reward=REWARD)

    assert "zebra" not in str(caught.value)
    assert not Path(settings.out).exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": ("q_projection",)}, "targets q_projection: .* has no layers of that name"),
        ({"template": None}, "template must be given"),
        ({"max_prompt_tokens": 4}, "row 3: its prompt has 5 tokens, more than max_prompt_tokens = 4"),
        ({"min_characters": 500}, "no text has between 500 and 4000 characters"),
        ({"prompts": "absent.jsonl"}, "absent.jsonl not found"),
        ({"reward": "clan"}, "unknown term 'clan'; known are acceptable, classifier, clean, copy"),
        ({"reward": "classifier('hub/name', label='x')"}, "'hub/name' is not a folder; .*pin revision="),
        ({"reward": "classifier('.', label='x')"}, "'.' has no classifier in safetensors on this machine"),
    ],
)
def test_what_cannot_work_is_one_clear_error_before_the_first_step(
    llama_base: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    settings = small_settings(llama_base, tmp_path, **changes)

    errors = (ConfigError, TrainingRowError, UsageError, ModelMissingError)
    with pytest.raises(errors, match=said):
        ppo.run(settings, reward=None if "reward" in changes else REWARD)

    assert not (tmp_path / "run").exists()


def test_a_judge_in_the_reward_is_refused(settings: PpoSettings) -> None:
    with pytest.raises(ConfigError, match="with which results are measured"):
        ppo.run(settings, reward=named("words", words, models=["alt-profanity-check"]))

    assert not Path(settings.out).exists()


def test_an_adapter_for_another_base_is_refused(t5_base: Path, llama_base: Path, tmp_path: Path) -> None:
    first = small_settings(llama_base, tmp_path, steps=1, keep_every=1)
    ppo.run(first, reward=REWARD)
    other = small_settings(t5_base, tmp_path, adapter=f"{first.out}/step-1", out=str(tmp_path / "other"))

    with pytest.raises(ManifestError, match="was trained on base"):
        ppo.run(other, reward=REWARD)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"kl_coefficient": -1.0}, "kl_coefficient must not be negative"),
        ({"gamma": 1.5}, "gamma must be between 0 and 1"),
        ({"estimator": "reinforce"}, "estimator must be one of ppo, rloo, grpo"),
        ({"kl_control": "none"}, "kl_control must be one of adaptive, fixed"),
        ({"estimator": "rloo"}, "rloo compares responses to one prompt: samples_per_prompt"),
        ({"minibatch_size": 99}, "minibatch_size 99 is more than the 16 responses of a step"),
        ({"min_limit": 99}, "min_limit 99 is more than response_tokens 48"),
        ({"kl_target": 0.0}, "kl_target must be above 0"),
        ({"whiten_rewards": True, "batch_size": 4, "minibatch_size": 4}, "needs at least 8 responses"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PpoSettings(**changes)


def test_the_command_trains_from_a_recipe(llama_base: Path, tmp_path: Path) -> None:
    settings = small_settings(llama_base, tmp_path)
    lines = [
        f'template = "{settings.template}"',
        'prompts = "prompts.jsonl"',
        'field = "text"',
        'reward = "length(least=2, most=4) - 0.5 * copy"',
        "steps = 2\nbatch_size = 4\nminibatch_size = 4\nresponse_tokens = 4\nrank = 2\nalpha = 4",
        f"targets = {json.dumps(list(layers_of(llama_base)))}",
        'dtype = "float32"',
    ]
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    options = ["--base", str(llama_base), "--data", str(tmp_path), "--out", settings.out]

    done = CliRunner().invoke(app, ["ppo", "--recipe", str(tmp_path / "recipe.toml"), *options])

    assert done.exit_code == 0, done.output
    assert "step 2 of 2, ppo/mean_scores" in done.output
    assert "trainable parameters: " in done.output
    assert (Path(settings.out) / "step-2" / "adapter_model.safetensors").is_file()
    assert {"reward/length", "reward/copy"} <= set(metrics(settings)[0])
