"""Whole runs on a tiny base: both schedules, resuming, baselines, bad input."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from guardrail.errors import ConfigError, FailureError
from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling
from guardrail_training import run as skeleton
from guardrail_training.cli import app
from guardrail_training.nado.auxiliary import load_auxiliary
from guardrail_training.records import TrainingRowError
from guardrail_training.regularized import trainer
from guardrail_training.regularized.corpus import last_statements, load_mixture
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.rewards.algebra import named
from tests.training.regularized.conftest import ORACLE, small_settings
from tests.training.reinforcement.conftest import WORDS, word_tokenizer
from tests.training.watching import assert_same_run, checkpoint, interrupting, metrics


@pytest.fixture(autouse=True)
def _corpus(tmp_path: Path) -> None:
    """Lists of statements in which some have the letter d, and plain text."""
    rows = [
        "\n".join(f"- {WORDS[(7 * row + line) % 32]} {WORDS[(3 * row) % 32]}" for line in range(4)) + "\n-"
        for row in range(12)
    ]
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    (tmp_path / "plain.txt").write_text(" ".join(WORDS * 6))


def test_a_run_leaves_adapter_auxiliary_model_metrics_and_its_circumstances(
    settings: RegularizedSettings, llama_base: Path
) -> None:
    report = trainer.run(settings, reward=ORACLE)

    out = Path(settings.out)
    assert (report.step, report.steps, report.stopped_by, report.finished) == (2, 2, None, True)
    first, middle, last = metrics(settings)
    assert [row["step"] for row in (first, middle, last)] == [0, 3, 6]
    assert first["auxiliary/guided_label"] > first["auxiliary/label"]
    assert middle["samples/failed"] == report.metrics["samples/failed"]
    assert "samples/failed" not in last  # nothing would learn from them
    assert last["loss/corpus_kl"] > 0
    assert last["loss/samples_kl"] > 0
    assert {"auxiliary/gap", "auxiliary/brier", "auxiliary/cross_entropy", "multiplier"} <= set(middle)
    assert json.loads((out / "run.json").read_text())["reward"] == "spotless"
    adapter = read_adapter(out / "step-6")
    assert adapter.manifest.metrics["step"] == 6
    assert [part["name"] for part in adapter.manifest.data] == ["lists.jsonl", "plain.txt"]
    base = modeling.load_base(llama_base, dtype=torch.float32)
    load_auxiliary(out / "step-6", model=base, base_sha256=sha256_of(llama_base / "model.safetensors"))
    assert adapter.manifest.metrics["samples/failed"] == round(report.metrics["samples/failed"], 4)
    assert [path.name for path in out.glob("samples-*")] == ["samples-1.safetensors"]
    assert str(llama_base) not in (out / "step-6" / "manifest.json").read_text()


@pytest.mark.parametrize("memory", [0.0, 0.5])
@pytest.mark.parametrize("schedule", ["sequential", "parallel"])
def test_an_interrupted_run_continues_to_the_bit(
    settings: RegularizedSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    schedule: str,
    memory: float,
) -> None:
    common = replace(settings, schedule=schedule, iterations=3, dual_ascent=1.0, memory=memory)
    straight = replace(common, out=str(tmp_path / "straight"))
    broken = replace(common, out=str(tmp_path / "broken"))
    trainer.run(straight, reward=ORACLE)

    with interrupting(skeleton, monkeypatch, at=3, act=lambda: signal.raise_signal(signal.SIGTERM)):
        report = trainer.run(broken, reward=ORACLE)

    assert (report.step, report.stopped_by, report.finished) == (1, "SIGTERM", False)
    torch.rand(7)  # what else happened meanwhile plays no part
    trainer.run(broken, reward=ORACLE)
    assert_same_run(straight, broken)
    assert checkpoint(straight)["control"]["multiplier"] != 1


def test_rows_at_a_time_change_nothing_but_rounding(settings: RegularizedSettings, tmp_path: Path) -> None:
    one = replace(settings, iterations=1, out=str(tmp_path / "one"), microbatch_size=1)
    many = replace(settings, iterations=1, out=str(tmp_path / "many"), microbatch_size=99)
    trainer.run(one, reward=ORACLE)
    trainer.run(many, reward=ORACLE)

    for first, second in zip(metrics(one), metrics(many), strict=True):
        assert second == pytest.approx(first, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("method", ["sft", "filtering"])
def test_the_baselines_learn_from_the_corpus_alone(settings: RegularizedSettings, method: str) -> None:
    plain = replace(settings, method=method, iterations=1)

    trainer.run(plain, reward=ORACLE)

    (row,) = metrics(plain)
    assert row["loss/corpus_kl"] == row["loss/samples_kl"] == 0
    assert "samples/failed" not in row
    assert not (Path(plain.out) / "step-3" / "auxiliary.json").exists()


def test_adaptive_leaves_the_general_part_to_the_language_model_loss(
    settings: RegularizedSettings, tmp_path: Path
) -> None:
    adaptive = replace(settings, iterations=1, samples_weight=0.0, out=str(tmp_path / "adaptive"))
    everywhere = replace(adaptive, adaptive=False, out=str(tmp_path / "everywhere"))
    trainer.run(adaptive, reward=ORACLE)
    trainer.run(everywhere, reward=ORACLE)

    one, other = metrics(adaptive)[1], metrics(everywhere)[1]
    assert one["tokens/corpus"] == other["tokens/corpus"]
    assert one["loss/corpus_kl"] != other["loss/corpus_kl"]


def test_the_gate_lowers_the_regularizer(settings: RegularizedSettings, tmp_path: Path) -> None:
    plain = replace(settings, iterations=1, out=str(tmp_path / "plain"))
    gated = replace(plain, gate="failure", out=str(tmp_path / "gated"))
    trainer.run(plain, reward=ORACLE)
    trainer.run(gated, reward=ORACLE)

    assert metrics(gated)[1]["loss/samples_kl"] < metrics(plain)[1]["loss/samples_kl"]


def test_the_regularizer_makes_failures_rarer(settings: RegularizedSettings) -> None:
    strong = replace(
        settings,
        iterations=6,
        steps=8,
        corpus_weight=0.0,
        samples_weight=3.0,
        prompts=10,
        samples_per_prompt=8,
        samples_batch=40,
        first_auxiliary_steps=150,
        auxiliary_steps=50,
        guided_share=0.5,
        keep_every=6,
    )

    trainer.run(strong, reward=ORACLE)

    failed = [row["samples/failed"] for row in metrics(strong) if "samples/failed" in row]
    assert failed[-1] < 0.75 * failed[0]


def test_parallel_sentences_serve_as_the_guided_part(settings: RegularizedSettings, tmp_path: Path) -> None:
    rows = [{"toxic": f"d{row % 8} a1", "neutral": [f"a{row % 8} a1"]} for row in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewriting = replace(settings, guided="pairs.jsonl", template="b0 {text} b1", general="", iterations=1)

    trainer.run(rewriting, reward=ORACLE)

    assert Manifest.load(Path(rewriting.out) / "step-3").template == "b0 {text} b1"


def test_lists_keep_their_last_statements() -> None:
    assert last_statements("- one\n- two\n\n- three\n-", count=2) == ["- two", "- three"]
    assert last_statements("- one\n- two-", count=3) == ["- one", "- two"]
    assert last_statements("- one", count=3) == ["- one"]
    assert last_statements(" \n-", count=3) == []


def test_an_oracle_without_failures_stops_the_run_before_it_teaches(settings: RegularizedSettings) -> None:
    always = named("always", lambda answers: [1.0] * len(answers))

    with pytest.raises(FailureError, match="calls all held-out responses successes"):
        trainer.run(replace(settings, min_auc=0.55), reward=always)
    assert not list(Path(settings.out).glob("step-*"))


def test_an_auxiliary_model_that_knows_nothing_stops_the_run(settings: RegularizedSettings) -> None:
    with pytest.raises(FailureError, match=r"below min_auc = 1.*teach noise.*first_auxiliary_steps"):
        trainer.run(replace(settings, min_auc=1.0, first_auxiliary_steps=1), reward=ORACLE)


def test_other_settings_do_not_continue_a_run(settings: RegularizedSettings) -> None:
    trainer.run(replace(settings, iterations=1), reward=ORACLE)

    with pytest.raises(ConfigError, match="other settings or data"):
        trainer.run(settings, reward=ORACLE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"corpus_weight": -1.0}, "corpus_weight must not be negative"),
        ({"min_success": 2.0}, "min_success must be between 0 and 1"),
        ({"schedule": "later"}, "schedule must be one of sequential, parallel, got 'later'"),
        ({"context": 64}, "context 64 must be less than window 64"),
        ({"min_weight": 9.0}, "min_weight 9.0 is more than max_weight 5.0"),
        ({"max_multiplier": 0.5}, "max_multiplier must be at least 1"),
        ({"guided_share": 0.0}, "leaves one part empty"),
        ({"guided_share": 1.0}, "leaves one part empty"),
    ],
)
def test_a_setting_that_cannot_work_is_an_error_that_names_it(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RegularizedSettings(**changes)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "no statement here"}, "a line does not begin with '-'"),
        ({"text": "- a0\n- " + "a1 " * 300}, "more than max_tokens = 256"),
    ],
)
def test_a_text_that_cannot_be_used_is_an_error_without_the_text(
    settings: RegularizedSettings, tmp_path: Path, row: dict[str, str], said: str
) -> None:
    (tmp_path / "lists.jsonl").write_text(json.dumps(row) + "\n")

    with pytest.raises(TrainingRowError, match=said) as raised:
        trainer.run(settings, reward=ORACLE)
    assert "a1" not in str(raised.value)
    assert "statement here" not in str(raised.value)


def test_the_command_trains_from_a_recipe(llama_base: Path, tmp_path: Path) -> None:
    small = small_settings(llama_base, tmp_path)
    names = ("guided", "field", "general", "window", "context", "batch_size", "prompts", "samples_per_prompt")
    more = (
        "first_prompts",
        "response_tokens",
        "auxiliary_hidden",
        "first_auxiliary_steps",
        "min_auc",
        "dtype",
    )
    lines = [f"{name} = {json.dumps(getattr(small, name))}" for name in (*names, *more)]
    lines += ["iterations = 1", "steps = 2", "rank = 2", "alpha = 4", 'reward = "length(least=2, most=4)"']
    (tmp_path / "recipe.toml").write_text("\n".join(lines))
    options = ["--base", str(llama_base), "--data", str(tmp_path), "--out", small.out]

    done = CliRunner().invoke(app, ["regularized", "--recipe", str(tmp_path / "recipe.toml"), *options])

    assert done.exit_code == 0, done.output
    assert "step 1 of 1, samples/failed" in done.output
    assert (Path(small.out) / "step-2" / "adapter_model.safetensors").is_file()


def test_a_sequence_begins_with_the_token_that_its_model_was_trained_with(
    settings: RegularizedSettings, tmp_path: Path
) -> None:
    plain, opened = word_tokenizer(), word_tokenizer()
    opened.bos_token = "</s>"
    opened.add_bos_token = True

    without, with_token = (load_mixture(tmp_path, settings, tokenizer=one) for one in (plain, opened))

    for part in ("guided", "general"):
        for one, other in zip(getattr(without, part), getattr(with_token, part), strict=True):
            assert (other.prompt, other.response) == ((1, *one.prompt), one.response)
    assert [query.ids for query in with_token.queries] == [(1, *query.ids) for query in without.queries]


def test_a_base_without_a_padding_token_is_given_one(
    settings: RegularizedSettings, llama_base: Path, tmp_path: Path
) -> None:
    base = tmp_path / "unpadded"
    shutil.copytree(llama_base, base)
    config = base / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token": None}))
    unpadded = replace(settings, base=str(base), iterations=1, method="sft")

    with pytest.raises(ConfigError, match="pad_token"):
        trainer.run(unpadded, reward=ORACLE)
    assert trainer.run(replace(unpadded, pad_token="</s>"), reward=ORACLE).finished
