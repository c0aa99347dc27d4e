"""A base in several weight files serves PPO, preference tuning and the evaluation of what they made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guardrail.errors import ManifestError
from guardrail.manifest import Manifest
from guardrail_training.evaluation.generation import compare
from guardrail_training.evaluation.generation.comparison import read_comparison
from guardrail_training.evaluation.generation.settings import GenerationSettings
from guardrail_training.preference import tuning
from guardrail_training.provenance import weights_sha256
from guardrail_training.reinforcement import ppo
from guardrail_training.rewards.algebra import named
from tests.training.preference.conftest import small_settings as small_preference
from tests.training.preference.conftest import write_rows, write_start
from tests.training.reinforcement.conftest import small_settings, tiny_llama, word_tokenizer

REWARD = named("brief", lambda answers: [1 / (1 + len(answer.response)) for answer in answers])


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama as the hub has large models: several weight files and no manifest."""
    folder = tmp_path_factory.mktemp("parted-llama")
    tiny_llama().save_pretrained(folder, max_shard_size="20KB")
    word_tokenizer().save_pretrained(folder)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def test_ppo_trains_on_it_and_what_it_made_is_compared_on_it(parted: Path, tmp_path: Path) -> None:
    settings = small_settings(parted, tmp_path, steps=2)

    ppo.run(settings, reward=REWARD)
    asked = GenerationSettings(
        run=settings.out, data=str(tmp_path), prompts="prompts.jsonl", field="text", judges=("brief",)
    )
    written = compare.run(asked, reward=REWARD, toxicity={"brief": REWARD.scores["brief"]})

    Manifest.load(Path(settings.out) / "step-2").check_base(weights_sha256(parted))
    assert weights_sha256(parted) in read_comparison(written).models["base"].values()


def test_an_adapter_for_it_is_tuned_by_preference_and_by_ppo(parted: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    start = write_start(parted, tmp_path / "start")

    report = tuning.run(small_preference(parted, start, tmp_path), reward=REWARD)
    tuned = tmp_path / "run" / f"step-{report.steps}"
    continued = small_settings(parted, tmp_path, adapter=str(tuned), steps=2, out=str(tmp_path / "ppo"))
    ppo.run(continued, reward=REWARD)

    assert report.finished
    for folder in (tuned, tmp_path / "ppo" / "step-2"):
        Manifest.load(folder).check_base(weights_sha256(parted))


def test_an_adapter_for_other_parts_is_refused(parted: Path, tmp_path: Path) -> None:
    other = write_start(parted, tmp_path / "start")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"trained_on": "0" * 64}))

    with pytest.raises(ManifestError, match="was trained on base"):
        ppo.run(small_settings(parted, tmp_path, adapter=str(other)), reward=REWARD)
