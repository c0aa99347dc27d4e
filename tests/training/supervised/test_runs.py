"""Runs of every kind: families, whole models and adapters, frozen bases in few bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from guardrail.errors import ConfigError, ManifestError
from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling, sft
from guardrail_training.checkpoint import FILENAME
from guardrail_training.sft import SftSettings
from tests.training.supervised.conftest import MODELS, small_run
from tests.training.watching import metrics


def facts(settings: SftSettings) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(settings.out) / "run.json").read_text())
    return found


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_both_families_learn_with_an_adapter(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    settings = small_run(name, bases[name], tmp_path, passes=20, rank=16, alpha=32, learning_rate=2e-2)

    report = sft.run(settings)

    assert report.finished
    assert report.metrics["dev_loss"] < 0.5 * metrics(settings)[0]["loss"]
    assert read_adapter(Path(settings.out) / "step-40").layers


@pytest.mark.parametrize("name", MODELS)
def test_full_tuning_learns_and_leaves_a_base(name: str, bases: dict[str, Path], tmp_path: Path) -> None:
    settings = small_run(name, bases[name], tmp_path, tuning="full", passes=25, learning_rate=5e-3)

    report = sft.run(settings)

    folder = Path(settings.out) / f"step-{report.step}"
    before, after = load_file(bases[name] / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[key], after[key]) for key in before if key != "final_logits_bias")
    assert report.metrics["dev_loss"] < 0.5 * metrics(settings)[0]["loss"]
    manifest = Manifest.load(folder)
    assert (manifest.kind, manifest.template) == ("base", settings.template)
    assert manifest.trained_on == sha256_of(folder / "model.safetensors")
    assert facts(settings)["trainable_parameters"] == facts(settings)["parameters"]


def test_a_model_that_was_tuned_in_full_is_a_base_again(bases: dict[str, Path], tmp_path: Path) -> None:
    settings = small_run("t5", bases["t5"], tmp_path, tuning="full", passes=2)
    report = sft.run(settings)

    folder = Path(settings.out) / f"step-{report.step}"
    again = replace(settings, base=str(folder), out=str(tmp_path / "again"), passes=1, learning_rate=1e-9)

    assert sft.run(again).metrics["dev_loss"] == pytest.approx(report.metrics["dev_loss"], abs=1e-3)


@pytest.mark.parametrize("quantisation", ["int8", "nf4"])
@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_frozen_base_in_few_bits_carries_a_trained_adapter(
    name: str, quantisation: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    before = sha256_of(bases[name] / "model.safetensors")
    settings = small_run(
        name, bases[name], tmp_path, quantisation=quantisation, passes=12, learning_rate=2e-2
    )

    report = sft.run(settings)

    assert report.metrics["dev_loss"] < 0.8 * metrics(settings)[0]["loss"]
    assert sha256_of(bases[name] / "model.safetensors") == before
    manifest = Manifest.load(Path(settings.out) / f"step-{report.step}")
    manifest.check_base(before)
    assert manifest.settings["quantisation"] == quantisation


@pytest.mark.parametrize("quantisation", ["int8", "nf4"])
def test_few_bits_are_few_bits_and_close_to_the_base(
    quantisation: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    exact = modeling.load_base(bases["llama"], dtype=torch.float32)
    small = modeling.load_base(bases["llama"], dtype=torch.float32, quantisation=quantisation)
    layers = {"int8": "Linear8bitLt", "nf4": "Linear4bit"}

    found = small.model.layers[0].mlp.up_proj
    assert type(found).__name__ == layers[quantisation]
    assert modeling.count_parameters(small).total == modeling.count_parameters(exact).total
    if quantisation == "nf4":
        assert found.weight.numel() == exact.model.layers[0].mlp.up_proj.weight.numel() / 2
        assert found.weight.quant_state.nested
        assert found.weight.quant_state.quant_type == "nf4"
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        one, other = exact(input_ids=ids).logits, small(input_ids=ids).logits
    assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0) > 0.9


@pytest.mark.parametrize("optimizer", ["adamw8bit", "paged_adamw8bit"])
def test_an_optimizer_with_8_bits_trains_and_resumes_bit_for_bit(
    optimizer: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    whole = small_run("t5", bases["t5"], tmp_path, optimizer=optimizer, tuning="full", learning_rate=1e-3)
    parts = replace(whole, out=str(tmp_path / "parts"), checkpoint_every=2)

    sft.run(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "mean_loss", _fails_after_a_checkpoint(sft.mean_loss))
        with pytest.raises(KeyError):
            sft.run(parts)
    sft.run(parts)

    states = [torch.load(Path(s.out) / FILENAME, weights_only=True) for s in (whole, parts)]
    assert states[0]["weights"].keys() == states[1]["weights"].keys()
    torch.testing.assert_close(states[0]["weights"], states[1]["weights"], atol=0, rtol=0)
    assert facts(whole)["optimizer"] == "AdamW8bit"  # a CPU pages nothing
    kept = json.dumps(states[0]["optimizer"]["state"], default=lambda value: str(value.dtype))
    assert "torch.uint8" in kept


def _fails_after_a_checkpoint(mean_loss: Any) -> Any:
    calls = []

    def failing(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("the machine went away")
        return mean_loss(*given, **named)

    return failing


def test_a_run_goes_on_from_an_adapter(bases: dict[str, Path], tmp_path: Path) -> None:
    first = small_run("t5", bases["t5"], tmp_path, passes=4)
    report = sft.run(first)
    adapter = Path(first.out) / f"step-{report.step}"

    on = replace(first, adapter=str(adapter), out=str(tmp_path / "on"), passes=1, learning_rate=1e-9)

    assert sft.run(on).metrics["dev_loss"] == pytest.approx(
        report.metrics["dev_loss"], abs=2e-3
    )  # stored in float16


def test_what_does_not_fit_is_an_error_before_the_first_step(bases: dict[str, Path], tmp_path: Path) -> None:
    settings = small_run("llama", bases["llama"], tmp_path, passes=1)
    report = sft.run(settings)
    adapter = str(Path(settings.out) / f"step-{report.step}")
    other = replace(settings, out=str(tmp_path / "other"))

    with pytest.raises(ManifestError, match="was trained on base"):
        sft.run(small_run("t5", bases["t5"], tmp_path / "t5", adapter=adapter))
    with pytest.raises(ConfigError, match="template differs"):
        sft.run(replace(other, adapter=adapter, template="{text}"))
    with pytest.raises(ConfigError, match="targets q: LlamaForCausalLM has no layers of that name"):
        sft.run(replace(other, targets=("q", "v_proj")))
    with pytest.raises(ConfigError, match="device = 'cuda' needs a GPU"):
        sft.run(replace(other, device="cuda"))
    assert not Path(other.out).exists()


def test_nf4_names_a_layer_that_has_no_whole_blocks(bases: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"blocks of 64 inputs, layer '.*' has 32"):
        modeling.load_base(bases["phi"], dtype=torch.float32, quantisation="nf4")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tuning": "some"}, "tuning must be one of lora, full"),
        ({"quantisation": "int4"}, "quantisation must be one of none, int8, nf4"),
        ({"optimizer": "sgd"}, "optimizer must be one of"),
        ({"tuning": "full", "quantisation": "nf4"}, "goes with tuning = 'lora' alone"),
        ({"tuning": "full", "dropout": 0.1}, "dropout is the adapter's"),
        ({"adapter": "a", "dropout": 0.1}, "dropout must be 0 when continuing"),
        ({"tuning": "full", "adapter": "a"}, "adapter goes with tuning = 'lora'"),
        ({"microbatch_size": 0}, "microbatch_size must be at least 1"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_settings_that_exclude_each_other_are_errors(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SftSettings(**change)


@pytest.mark.parametrize("missing", ["pad_token", "eos_token"])
def test_a_tokenizer_without_padding_or_end_is_an_error_that_names_it(
    missing: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    for path in bases["llama"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop(missing)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))

    with pytest.raises(ConfigError, match=f"has no {missing}"):
        modeling.load_ending_tokenizer(folder)
    if missing == "pad_token":
        assert modeling.load_ending_tokenizer(folder, pad_token="</s>").pad_token_id == 1
        with pytest.raises(ConfigError, match="does not know 'nothing'"):
            modeling.load_ending_tokenizer(folder, pad_token="nothing")
