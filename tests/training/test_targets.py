"""Adapters on architectures that call their layers otherwise than Llama."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.errors import ConfigError
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling
from guardrail_training.recipe import read_recipe
from guardrail_training.regularized import trainer
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.settings import ALL_LINEAR
from research.comparison import experiment
from tests.training.regularized.conftest import ORACLE, small_settings
from tests.training.reinforcement.conftest import WORDS, _one_thread, tiny_llama, tiny_t5, write_base
from tests.training.reinforcement.test_families import bloom, phi

__all__ = ["_one_thread"]


def falcon() -> Any:
    from transformers import FalconConfig, FalconForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    return FalconForCausalLM(FalconConfig(vocab_size=3 + len(WORDS), eos_token_id=1, bos_token_id=1, **sizes))


FUSED = {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
LAYERS = {
    bloom: FUSED,
    falcon: FUSED,
    tiny_llama: {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    phi: {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"},
    tiny_t5: {"q", "k", "v", "o", "wi", "wo"},
}


@pytest.mark.parametrize("made", LAYERS, ids=lambda made: made.__name__)
def test_all_linear_is_every_linear_layer_but_the_output(made: Any) -> None:
    adapted = modeling.add_lora(made(), rank=2, alpha=4, dropout=0.0, targets=ALL_LINEAR)

    assert set(adapted.peft_config["default"].target_modules) == LAYERS[made]
    assert not any("lm_head" in name for name, one in adapted.named_parameters() if one.requires_grad)


def test_a_name_that_a_model_does_not_have_is_an_error_with_those_it_has() -> None:
    with pytest.raises(ConfigError, match=r"targets q_proj: BloomForCausalLM .* are dense, dense_4h_to_h"):
        modeling.add_lora(bloom(), rank=2, alpha=4, dropout=0.0, targets=("q_proj",))


def settings_on(made: Any, folder: Path) -> RegularizedSettings:
    """What the recipe says, on a tiny base and few samples; its targets stay."""
    base = write_base(folder / "base", made().float())
    lists = [
        "\n".join(f"- {WORDS[(5 * row + line) % 32]} {WORDS[row]}" for line in range(3)) for row in range(12)
    ]
    (folder / "lists.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lists))
    (folder / "plain.txt").write_text(" ".join(WORDS * 6))
    small = small_settings(base, folder, iterations=1, steps=1)
    overrides = {name: value for name, value in vars_of(small).items() if name != "targets"}
    return read_recipe("toxigen-regularized", settings=RegularizedSettings, overrides=overrides)


def vars_of(settings: RegularizedSettings) -> dict[str, Any]:
    from dataclasses import asdict

    known = asdict(settings)
    return known | {"known_texts": (), "prefix_weight": 0.0, "reward": "spotless"}


@pytest.mark.parametrize("made", [bloom, falcon], ids=lambda made: made.__name__)
def test_the_regularizer_and_its_row_of_ppo_run_on_other_architectures(made: Any, tmp_path: Path) -> None:
    settings = settings_on(made, tmp_path)

    assert settings.targets == ALL_LINEAR
    assert trainer.run(settings, reward=ORACLE).finished
    with pytest.MonkeyPatch.context() as patch:
        read = experiment.read_recipe

        def few(*given: Any, overrides: dict[str, Any], **named: Any) -> Any:
            small = {"steps": 1, "batch_size": 8, "minibatch_size": 8, "epochs": 1}
            return read(*given, overrides=overrides | small, **named)

        patch.setattr(experiment, "read_recipe", few)
        trained = experiment._reinforced(settings, folder=tmp_path / "rl", reward=ORACLE)

    assert trained.folder is not None
    names = {name.rpartition(".")[2] for name in read_adapter(trained.folder).layers}
    assert names == FUSED
