"""Every trainer computes where it is told to: the loops on a device that is not the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.errors import ConfigError
from guardrail_training import modeling, sft
from guardrail_training.checkpoint import load_checkpoint, save_checkpoint
from guardrail_training.metrics.fluency import surprise
from guardrail_training.preference import tuning
from guardrail_training.regularized import trainer
from guardrail_training.reinforcement import ppo
from guardrail_training.rewards.algebra import Answer
from guardrail_training.rewards.models import load_classifier, sequence_classifier
from tests.training.elsewhere import ELSEWHERE, There, elsewhere
from tests.training.preference import conftest as preferences
from tests.training.preference.conftest import REWARD
from tests.training.regularized import conftest as regularized
from tests.training.reinforcement import conftest as reinforcement
from tests.training.reinforcement.conftest import WORDS, _one_thread, llama_base, t5_base, word_tokenizer
from tests.training.supervised.conftest import small_run
from tests.training.watching import adapters, metrics

__all__ = ["_one_thread", "llama_base", "t5_base"]


def supervised_run(base: Path, folder: Path, **changes: Any) -> Any:
    return small_run("t5" if "t5" in base.name else "llama", base, folder, **changes)


def preference_run(base: Path, folder: Path, **changes: Any) -> Any:
    preferences.write_rows(folder)
    return preferences.small_settings(
        base, preferences.write_start(base, folder / "start"), folder, **changes
    )


def regularized_run(base: Path, folder: Path, **changes: Any) -> Any:
    lists = [
        "\n".join(f"- {WORDS[(5 * row + line) % 32]} {WORDS[row]}" for line in range(3)) for row in range(12)
    ]
    (folder / "lists.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lists))
    (folder / "plain.txt").write_text(" ".join(WORDS * 6))
    # More steps of the auxiliary model, and differences of rounding decide the signs of Adam's first steps.
    few = {"first_auxiliary_steps": 1, "auxiliary_steps": 1, "iterations": 2, "steps": 1}
    return regularized.small_settings(base, folder, **(few | changes))


def answer(run: Callable[..., Any], **given: Any) -> Callable[[Any], Any]:
    return lambda settings: run(settings, **given)


LOOPS = {
    "sft": ("llama_base", supervised_run, answer(sft.run), {}),
    "sft, T5": ("t5_base", supervised_run, answer(sft.run), {"microbatch_size": 2}),
    "ppo": ("llama_base", reinforcement.small_settings, answer(ppo.run, reward=REWARD), {}),
    "ppo, T5": ("t5_base", reinforcement.small_settings, answer(ppo.run, reward=REWARD), {}),
    "grpo": (
        "llama_base",
        reinforcement.small_settings,
        answer(ppo.run, reward=REWARD),
        {"estimator": "grpo", "samples_per_prompt": 2, "gradient_checkpointing": True},
    ),
    "dpo": ("llama_base", preference_run, answer(tuning.run, reward=REWARD), {}),
    "orpo, T5": ("t5_base", preference_run, answer(tuning.run, reward=REWARD), {"method": "orpo"}),
    "regularized": ("llama_base", regularized_run, answer(trainer.run, reward=regularized.ORACLE), {}),
    "regularized, prefixes": (
        "llama_base",
        regularized_run,
        answer(trainer.run, reward=regularized.ORACLE),
        {"schedule": "sequential", "temperature": 1.3, "prefix_weight": 0.5, "memory": 0.5},
    ),
    "decoding": (
        "llama_base",
        regularized_run,
        answer(trainer.run, reward=regularized.ORACLE),
        {"method": "decoding"},
    ),
}


@pytest.fixture(autouse=True)
def _same_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """New layers begin alike on every device, whose random numbers differ."""

    def spread(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        with torch.no_grad():
            values = torch.linspace(-0.3, 0.3, tensor.numel()).view(tensor.shape).sin()
            return tensor.copy_(values)

    for name in ("kaiming_uniform_", "uniform_"):
        monkeypatch.setattr(torch.nn.init, name, spread)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_takes_the_same_steps_on_another_device(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base, made, run, changes = LOOPS[name]
    here = made(request.getfixturevalue(base), tmp_path, **changes)
    there = replace(here, out=str(tmp_path / "there"), device="meta")

    run(here)
    with elsewhere():
        run(there)

    assert [row["step"] for row in metrics(here)] == [row["step"] for row in metrics(there)]
    for one, other in zip(metrics(here), metrics(there), strict=True):
        # An AUC of a dozen samples jumps where two of them change places.
        one, other = ({key: row[key] for key in row if "/auc_" not in key} for row in (one, other))
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
    assert adapters(here).keys() == adapters(there).keys()


@pytest.mark.parametrize("name", ["sft", "ppo"])
def test_a_run_on_another_device_goes_on_to_the_bit(
    name: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base, made, run, changes = LOOPS[name]
    straight = made(request.getfixturevalue(base), tmp_path, device="meta", checkpoint_every=1, **changes)
    parts = replace(straight, out=str(tmp_path / "parts"))

    with elsewhere():
        run(straight)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("guardrail_training.run.MetricLog.add", failing_at(2))
            with pytest.raises(KeyError):
                run(parts)
        run(parts)

    assert metrics(straight) == metrics(parts)
    assert adapters(straight) == adapters(parts)


def failing_at(step: int) -> Callable[..., None]:
    def add(self: Any, values: Any, *, step: int) -> None:
        if step == last:
            raise KeyError("the machine went away")
        write(self, values, step=step)

    from guardrail_training.runlog import MetricLog

    last, write = step, MetricLog.add
    return add


def test_the_models_of_rewards_and_of_fluency_compute_where_they_are(
    llama_base: Path, tmp_path: Path
) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig.from_pretrained(llama_base, num_labels=2, id2label={0: "bad", 1: "good"})
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    answers = [Answer(query="", prompt="", response=text) for text in ("a0 b1", "c2 d3 a1")]

    found = {}
    with elsewhere():
        for device in (torch.device("cpu"), ELSEWHERE):
            model, tokenizer = load_classifier(str(tmp_path), device=device)
            score = sequence_classifier(model, tokenizer, label="good", output="logit", over="response")
            base = modeling.load_base(llama_base, dtype=torch.float32, device=device)
            nats = surprise(base, tokenizer, ["a0 b1", "c2 d3 a1"]).nats
            found[device.type] = [*score(answers).tolist(), *nats.tolist()]

    assert found["meta"] == pytest.approx(found["cpu"], rel=1e-5)


def test_the_stand_in_for_a_device_refuses_what_a_gpu_would() -> None:
    with elsewhere():
        tensor = torch.ones(2, 2).to(ELSEWHERE)
        assert isinstance(tensor, There)
        assert tensor.sum().item() == 4
        with pytest.raises(RuntimeError, match="over two devices"):
            tensor + torch.ones(2, 2)
        with pytest.raises((TypeError, RuntimeError)):
            tensor.numpy()


def test_a_state_keeps_the_random_numbers_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Module:
        state = torch.arange(4, dtype=torch.uint8)

        def get_rng_state(self) -> torch.Tensor:
            return self.state

        def set_rng_state(self, state: torch.Tensor) -> None:
            self.state = state

    module = Module()
    monkeypatch.setattr(torch, "meta", module, raising=False)
    with elsewhere():
        model = torch.nn.Linear(2, 1).to(ELSEWHERE)
        optimizer = torch.optim.AdamW(model.parameters())
        save_checkpoint(tmp_path, step=3, model=model, optimizer=optimizer, fingerprint="f")
        module.state = torch.zeros(4, dtype=torch.uint8)

        assert load_checkpoint(tmp_path, model=model, optimizer=optimizer, fingerprint="f") == 3

    assert module.state.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("supported", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_asks_the_device_for_bfloat16(
    monkeypatch: pytest.MonkeyPatch, supported: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": not supported})
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: supported)

    assert modeling.resolve_dtype("auto", torch.device("cuda")) is expected
    assert modeling.resolve_dtype("auto", torch.device("cpu")) is not expected


@pytest.mark.parametrize("name", ["gpu", "cuda"])
def test_a_device_that_is_not_here_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device .*{name}"):
        modeling.resolve_device(name)
