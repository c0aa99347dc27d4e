from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from guardrail.errors import ConfigError, ManifestError, UsageError
from guardrail.manifest import Manifest
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling, sft
from guardrail_training.cli import app
from guardrail_training.export.release import ExportSettings, export
from guardrail_training.modeling import resume_adapter
from guardrail_training.sft import SftSettings
from tests.training.reinforcement.conftest import tiny_llama, tiny_t5, write_base
from tests.training.supervised.conftest import _one_thread, small_run

MODELS = {"llama": tiny_llama, "t5": tiny_t5}
assert _one_thread


@pytest.fixture(params=MODELS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> SftSettings:
    """A finished run of two steps that left two adapters."""
    base = tmp_path / "base"
    base.mkdir()
    write_base(base, MODELS[request.param]())
    settings = small_run(request.param, base, tmp_path, passes=2, batch_size=8)
    assert sft.run(settings).finished
    return settings


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 9)[None]
    inputs = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, **inputs).logits
    return found


def test_merged_weights_give_what_base_and_adapter_give(run: SftSettings, tmp_path: Path) -> None:
    out = export(ExportSettings(run=run.out, out=str(tmp_path / "merged")))

    adapter = read_adapter(Path(run.out) / "step-2")
    expected = logits(resume_adapter(modeling.load_base(run.base, dtype=torch.float32), adapter).eval())
    found = logits(modeling.load_base(out, dtype=torch.float32))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, logits(modeling.load_base(run.base, dtype=torch.float32)), atol=1e-3)
    manifest = Manifest.load(out)
    assert (manifest.kind, manifest.template) == ("base", run.template)
    assert manifest.settings["merged"]["base_sha256"] == adapter.manifest.trained_on
    assert {path.name for path in out.iterdir()} == {*manifest.files, "manifest.json"}
    assert modeling.load_tokenizer(out).eos_token == "</s>"


def test_an_exported_model_is_a_base_to_train_on(run: SftSettings, tmp_path: Path) -> None:
    out = export(ExportSettings(run=run.out, out=str(tmp_path / "merged"), step=1))

    report = sft.run(replace(run, base=str(out), out=str(tmp_path / "again"), learning_rate=1e-9))

    before = Manifest.load(Path(run.out) / "step-1").metrics["dev_loss"]
    assert report.metrics["dev_loss"] == pytest.approx(before, abs=2e-3)  # the adapter was stored in float16


def test_an_adapter_is_exported_as_it_is_with_a_card(run: SftSettings, tmp_path: Path) -> None:
    out = export(ExportSettings(run=str(Path(run.out) / "step-1"), out=str(tmp_path / "one"), form="adapter"))

    assert read_adapter(out).manifest.metrics["step"] == 1
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\nlibrary_name: peft\n")
    assert "with_adapter" in card
    assert run.template in card
    assert "| learning_rate | 0.01 |" in card
    assert "Not measured yet" in card
    assert str(tmp_path) not in card


def test_an_adapter_says_at_which_temperature_it_serves(run: SftSettings, tmp_path: Path) -> None:
    wanted = ExportSettings(run=run.out, out=str(tmp_path / "warm"), form="adapter", temperature=1.3)

    assert Manifest.load(export(wanted)).temperature == 1.3
    with pytest.raises(ConfigError, match="temperature must be more than 0, got 0"):
        replace(wanted, temperature=0.0)
    with pytest.raises(ConfigError, match="temperature goes with form = 'adapter'"):
        replace(wanted, form="merged")


def test_half_the_bytes_on_request(run: SftSettings, tmp_path: Path) -> None:
    out = export(ExportSettings(run=run.out, out=str(tmp_path / "half"), dtype="bfloat16"))

    floats = {value.dtype for value in load_file(out / "model.safetensors").values()}
    assert floats == {torch.bfloat16}


def test_a_whole_model_is_copied_with_its_card(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    settings = small_run("t5", write_base(base, tiny_t5()), tmp_path, tuning="full", max_steps=1)
    sft.run(settings)

    out = export(ExportSettings(run=settings.out, out=str(tmp_path / "whole")))

    assert Manifest.load(out).kind == "base"
    assert "library_name: transformers" in (out / "README.md").read_text()
    with pytest.raises(ConfigError, match="holds a whole model"):
        export(ExportSettings(run=settings.out, out=str(tmp_path / "adapter"), form="adapter"))
    assert not list(tmp_path.glob("adapter*"))


def test_the_card_holds_the_tables_of_an_evaluation(run: SftSettings, tmp_path: Path) -> None:
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    block = {
        "system": "greedy", "n": 9, "sta": {"judge": interval}, "j_first": {"judge": interval},
        "j_best": {"judge": interval}, "lower": {"sta": "judge", "j_first": "judge", "j_best": "judge"},
        "similarity": {"encoder": 0.8}, "reference_similarity": {"encoder": 0.7}, "toxicity": {},
        "actions": {}, "bleu": 0.3, "corpus_bleu": 0.3, "rouge1": 0.3, "rouge2": 0.3, "rougeL": 0.3,
        "chrf_first": 0.3, "chrf_best": 0.3, "perplexity_ratio": 1.0,
    }  # fmt: skip
    results = tmp_path / "rewriter.json"
    results.write_text(json.dumps({"blocks": {"all": [block], "rewritten": [block]}, "advantages": []}))

    out = export(ExportSettings(run=run.out, out=str(tmp_path / "merged"), results=str(results)))

    assert "| greedy | 9 | 0.500 [0.400, 0.600] |" in (out / "README.md").read_text()


def test_what_cannot_be_exported_is_one_error_and_leaves_nothing(run: SftSettings, tmp_path: Path) -> None:
    wanted = ExportSettings(run=run.out, out=str(tmp_path / "out"))
    with pytest.raises(UsageError, match="has no step 7; it has step-1, step-2"):
        export(replace(wanted, step=7))
    with pytest.raises(UsageError, match="no step-N folders"):
        export(replace(wanted, run=str(tmp_path)))
    with pytest.raises(ConfigError, match="form must be one of merged, adapter"):
        replace(wanted, form="gguf")
    (tmp_path / "other").mkdir()
    other = tiny_llama()
    other.lm_head.weight.data += 1
    with pytest.raises(ManifestError, match="was trained on base"):
        export(replace(wanted, base=str(write_base(tmp_path / "other", other))))
    with pytest.raises(UsageError, match="holds no table of rewriters"):
        export(replace(wanted, results=str(Path(run.out) / "run.json")))
    with pytest.raises(UsageError, match="is not empty"):
        export(replace(wanted, out=run.out))
    weights = Path(run.out) / "step-2" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ManifestError, match="was altered or cut short"):
        export(wanted)
    assert not list(tmp_path.glob("out*"))


def test_the_command_names_the_folder(run: SftSettings, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", run.out, "--out", str(tmp_path / "model"), "--form", "adapter"])

    assert done.exit_code == 0, done.output
    assert f"written to {tmp_path / 'model'}" in done.output.replace("\n", "")
