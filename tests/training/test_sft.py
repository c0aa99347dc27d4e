from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from guardrail.errors import ConfigError
from guardrail.manifest import Manifest, Template, sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling, sft
from guardrail_training import run as skeleton
from guardrail_training.checkpoint import load_checkpoint
from guardrail_training.processes import Processes
from guardrail_training.records import TrainingRowError
from guardrail_training.run import Report
from guardrail_training.sft import SftSettings, learning_rate
from guardrail_training.supervised.network import TargetLoss
from tests.training.watching import assert_same_run, checkpoint, interrupting, metrics

ROWS = [
    ("the rude cat sat", ["the cat sat", "a cat sat down"]),
    ("say nothing , you mat", ["please say nothing"]),
    ("rude words of the user", ["words of the user", "the user said words"]),
    ("the rude assistant", ["the assistant"]),
    ("this is a rude sentence about nothing", ["this is a sentence"]),
    ("the mat is rude and the cat is rude", ["the mat and the cat", "the cat and the mat"]),
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads, much slower where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings(tiny_base: Path, tmp_path: Path) -> SftSettings:
    """Six sentences, two passes in batches of two: six steps, evaluated after 2, 3, 5 and 6."""
    folder = tmp_path / "sources" / "paradetox"
    folder.mkdir(parents=True)
    for split, rows in (("train", ROWS), ("dev", ROWS[:3])):
        lines = [json.dumps({"toxic": toxic, "neutral": neutral}) + "\n" for toxic, neutral in rows]
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return SftSettings(
        base=str(tiny_base),
        data=str(tmp_path / "sources"),
        out=str(tmp_path / "run"),
        batch_size=2,
        rank=4,
        alpha=8,
        learning_rate=1e-2,
        dtype="float32",
        checkpoint_every=2,
        evaluations_per_pass=2,
        keep_models=0,
    )


def interrupted(settings: SftSettings, monkeypatch: pytest.MonkeyPatch, *, at: int, act: Any) -> Report:
    with interrupting(skeleton, monkeypatch, at=at, act=act):
        return sft.run(settings)


def test_a_run_leaves_adapters_metrics_and_its_circumstances(settings: SftSettings) -> None:
    report = sft.run(settings)

    out = Path(settings.out)
    assert (report.step, report.steps, report.stopped_by, report.finished) == (6, 6, None, True)
    assert [row["step"] for row in metrics(settings) if "dev_loss" in row] == [2, 3, 5, 6]
    assert [row["step"] for row in metrics(settings) if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert metrics(settings)[-1]["dev_loss"] == report.metrics["dev_loss"]
    assert sorted(path.name for path in out.glob("step-*")) == ["step-2", "step-3", "step-5", "step-6"]
    facts = json.loads((out / "run.json").read_text())
    assert facts["settings"]["seed"] == 0
    assert facts["data_sha256"]["train"] == sha256_of(Path(settings.data or "") / "paradetox/train.jsonl")
    assert {"torch", "peft", "python"} <= set(facts["versions"])
    assert list(out.glob("events.out.tfevents.*"))


def test_a_kept_adapter_can_be_served_and_says_what_it_was_trained_on(
    settings: SftSettings, tiny_base: Path
) -> None:
    sft.run(settings)

    folder = Path(settings.out) / "step-6"
    served, manifest = read_adapter(folder), Manifest.load(folder)
    assert served.template == Template(settings.template)
    manifest.check_base(sha256_of(tiny_base / "model.safetensors"))
    assert manifest.metrics["step"] == 6
    assert manifest.data[0]["rows"] == len(ROWS)
    assert str(tiny_base) not in (folder / "manifest.json").read_text()


def test_training_lowers_the_loss_and_moves_every_matrix_of_the_adapter(settings: SftSettings) -> None:
    long = replace(settings, passes=8, evaluations_per_pass=1)
    sft.run(long)

    dev = [row["dev_loss"] for row in metrics(long) if "dev_loss" in row]
    assert dev[-1] < dev[0] - 0.5
    ups = {
        k: v
        for k, v in load_file(Path(long.out) / "step-24/adapter_model.safetensors").items()
        if "lora_B" in k
    }
    assert len(ups) == 14
    assert all(bool(up.any()) for up in ups.values())  # they start at zero


def test_the_base_is_left_as_it_was(settings: SftSettings, tiny_base: Path) -> None:
    kept: list[Any] = []
    load = modeling.load_base

    def remember(folder: str, **options: Any) -> Any:
        kept.append(load(folder, **options))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling, "load_base", remember)
        sft.run(settings)

    trained = {k.replace(".base_layer", ""): v for k, v in kept[0].state_dict().items()}
    for name, value in load_file(tiny_base / "model.safetensors").items():
        assert torch.equal(trained[name], value), name


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_stopped_by_a_signal_continues_bit_for_bit(
    settings: SftSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signal_number: signal.Signals
) -> None:
    whole = replace(settings, out=str(tmp_path / "whole"))
    sft.run(whole)
    before = signal.getsignal(signal_number)

    stopped = interrupted(settings, monkeypatch, at=3, act=lambda: signal.raise_signal(signal_number))

    assert (stopped.step, stopped.stopped_by, stopped.finished) == (3, signal_number.name, False)
    assert signal.getsignal(signal_number) is before
    assert checkpoint(settings)["step"] == 3
    assert sft.run(settings).finished
    assert_same_run(whole, settings)


def test_a_killed_run_continues_from_its_last_checkpoint_bit_for_bit(
    settings: SftSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(settings, out=str(tmp_path / "whole"))
    sft.run(whole)

    def die() -> None:
        raise KeyError("the machine went away")

    with pytest.raises(KeyError):
        interrupted(settings, monkeypatch, at=5, act=die)

    assert checkpoint(settings)["step"] == 4
    assert [row["step"] for row in metrics(settings)][-1] == 5
    assert sft.run(settings).finished
    assert_same_run(whole, settings)


def test_a_finished_run_is_not_trained_again(settings: SftSettings) -> None:
    sft.run(settings)
    before = metrics(settings)

    report = sft.run(settings)

    assert (report.step, report.steps) == (6, 6)
    assert metrics(settings) == before


def test_the_seed_decides_the_run(settings: SftSettings, tmp_path: Path) -> None:
    same, other = (replace(settings, out=str(tmp_path / name)) for name in ("same", "other"))

    sft.run(settings)
    sft.run(same)
    sft.run(replace(other, seed=1))

    assert_same_run(settings, same)
    assert metrics(settings) != metrics(other)


@pytest.mark.parametrize("change", [{"learning_rate": 2e-2}, {"seed": 1}, {"passes": 3}])
def test_a_checkpoint_of_other_settings_is_refused(settings: SftSettings, change: dict[str, Any]) -> None:
    sft.run(replace(settings, passes=1, evaluations_per_pass=1))

    with pytest.raises(ConfigError, match="other settings or data"):
        sft.run(replace(settings, **{"passes": 1, **change}))


def test_bfloat16_trains_close_to_float32(settings: SftSettings, tmp_path: Path) -> None:
    half = replace(settings, dtype="bfloat16", out=str(tmp_path / "half"))

    exact, close = sft.run(settings), sft.run(half)

    assert close.metrics["dev_loss"] == pytest.approx(exact.metrics["dev_loss"], rel=0.05)
    assert checkpoint(half)["weights"].popitem()[1].dtype is torch.float32


def test_bad_rows_and_rows_that_are_too_long_stop_the_run_before_its_first_step(
    settings: SftSettings,
) -> None:
    with pytest.raises(TrainingRowError, match=r"row \d+: \d+ tokens are more than max_tokens = 20"):
        sft.run(replace(settings, max_tokens=20))
    path = Path(settings.data or "") / "paradetox/train.jsonl"
    path.write_text(path.read_text() + '{"toxic": "x", "neutral": [""]}\n', encoding="utf-8")
    with pytest.raises(TrainingRowError, match="row 7"):
        sft.run(settings)
    assert not Path(settings.out).exists()


def test_data_of_which_every_reference_is_a_copy_is_an_error(settings: SftSettings) -> None:
    path = Path(settings.data or "") / "paradetox/train.jsonl"
    path.write_text('{"toxic": "a b", "neutral": ["A b!"]}\n', encoding="utf-8")

    with pytest.raises(TrainingRowError, match="no row is left"):
        sft.run(settings)


@pytest.mark.parametrize(
    "change", [{"passes": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"warmup": 1.0}, {"rank": 0}]
)
def test_settings_that_cannot_work_are_errors_that_name_the_key(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        SftSettings(base="b", out="o", **change)


def test_the_mean_loss_does_not_depend_on_batches(settings: SftSettings, tiny_base: Path) -> None:
    tokenizer, model = modeling.load_tokenizer(tiny_base), modeling.load_base(tiny_base, dtype=torch.float32)
    template = Template(settings.template)
    examples = [
        modeling.encode_example(tokenizer, template, source=toxic, target=neutral[0])
        for toxic, neutral in ROWS
    ]

    network = TargetLoss(model, pad_id=0, dtype=torch.float32)

    together = sft.mean_loss(network, examples, processes=Processes())

    alone = [sft.mean_loss(network, [example], processes=Processes()).value for example in examples]
    tokens = [len(example.target) for example in examples]
    mean = sum(loss * count for loss, count in zip(alone, tokens, strict=True)) / sum(tokens)
    assert together.value == pytest.approx(mean, abs=1e-4)
    # The interval, by the textbook's loop: residuals of each example's loss from the mean of its tokens.
    residuals = [(loss - mean) * count for loss, count in zip(alone, tokens, strict=True)]
    n = len(tokens)
    error = 1.96 * math.sqrt(sum(each**2 for each in residuals) * n / (n - 1)) / sum(tokens)
    assert together.error == pytest.approx(error, rel=1e-3)


@given(steps=st.integers(1, 500), warmup=st.floats(0, 0.9))
def test_the_learning_rate_rises_to_its_peak_then_falls_towards_zero(steps: int, warmup: float) -> None:
    rates = [learning_rate(step, steps=steps, warmup=warmup, peak=2.0) for step in range(steps)]

    top = rates.index(max(rates))
    assert all(0 < rate <= 2.0 for rate in rates)
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_without_a_checkpoint_a_run_starts_at_step_0(tiny_base: Path, tmp_path: Path) -> None:
    model = modeling.load_base(tiny_base, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters())

    assert load_checkpoint(tmp_path, model=model, optimizer=optimizer, fingerprint="") == 0
