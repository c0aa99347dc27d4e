from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from guardrail.errors import ModelFileError
from guardrail.rewriters.adapter import Adapter, Factors, read_adapter
from guardrail_training import modeling
from guardrail_training.modeling.stacked import merge, save_stacked
from guardrail_training.reinforcement.policy import Learner
from tests.conftest import write_adapter_manifest
from tests.training.reinforcement.conftest import layers_of, load_learner

PROMPTS = [[5, 6, 7, 8], [10, 11]]
RESPONSES = torch.tensor([[20, 21, 1], [23, 24, 25]])
MASK = torch.ones_like(RESPONSES, dtype=torch.bool)


def saved(learner: Learner, folder: Path, base: Path, *, start: Adapter | None = None) -> Adapter:
    save_stacked(learner.model, folder, start=start)
    write_adapter_manifest(folder, base)
    return read_adapter(folder)


def logprobs(learner: Learner) -> torch.Tensor:
    with torch.no_grad():
        return learner.read(learner.family.pad(PROMPTS), RESPONSES, MASK).logprobs


def continued(base: Path, start: Adapter, *, targets: tuple[str, ...]) -> Learner:
    model = modeling.load_base(base, dtype=torch.float32)
    merge(model, start)
    torch.manual_seed(1)
    adapted = modeling.add_lora(model, rank=2, alpha=8, dropout=0.0, targets=targets)
    return Learner(adapted, pad_id=0, temperature=0.7, dtype=torch.float32, has_values=True)


def test_merged_an_adapter_is_the_reference_and_the_fresh_policy(base: Path, tmp_path: Path) -> None:
    tuned = load_learner(base, stirred=True)
    start = saved(tuned, tmp_path / "start", base)

    learner = continued(base, start, targets=layers_of(base))

    reference = learner.reference_logprobs(learner.family.pad(PROMPTS), RESPONSES, MASK)
    assert torch.equal(logprobs(learner), reference)
    torch.testing.assert_close(reference, logprobs(tuned), atol=2e-2, rtol=1e-2)  # float16 in the file


@pytest.mark.parametrize("layers", [slice(None), slice(0, 2)])
def test_what_is_saved_is_one_adapter_for_the_untouched_base(
    base: Path, tmp_path: Path, layers: slice
) -> None:
    start = saved(load_learner(base, stirred=True), tmp_path / "start", base)
    learner = continued(base, start, targets=layers_of(base)[layers])
    with torch.no_grad():
        for parameter in modeling.trainable_parameters(learner.model):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))

    whole = saved(learner, tmp_path / "whole", base, start=start)

    model = modeling.load_base(base, dtype=torch.float32)
    merge(model, whole)
    adapted = modeling.add_lora(model, rank=1, alpha=1, dropout=0.0, targets=layers_of(base))
    served = Learner(adapted, pad_id=0, temperature=0.7, dtype=torch.float32, has_values=False)
    torch.testing.assert_close(logprobs(served), logprobs(learner), atol=2e-2, rtol=1e-2)
    assert {len(factors.down) for factors in whole.layers.values()} == {6}
    assert whole.scale == 1


def test_an_adapters_file_names_the_task_of_its_family(base: Path, tmp_path: Path) -> None:
    save_stacked(load_learner(base).model, tmp_path, start=None)

    task = json.loads((tmp_path / "adapter_config.json").read_text())["task_type"]

    assert task == ("SEQ_2_SEQ_LM" if "t5" in base.name else "CAUSAL_LM")


def test_an_adapter_of_another_shape_or_name_changes_nothing(llama_base: Path, tmp_path: Path) -> None:
    start = saved(load_learner(llama_base, stirred=True), tmp_path / "start", llama_base)
    model = modeling.load_base(llama_base, dtype=torch.float32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    strange = Factors(down=np.zeros((4, 9), np.float32), up=np.zeros((9, 4), np.float32))
    layer = "model.layers.0.mlp.up_proj"

    for layers in ({**start.layers, "model.layers.7.mlp.up_proj": strange}, {**start.layers, layer: strange}):
        with pytest.raises(ModelFileError, match="is it for another base"):
            merge(model, Adapter(start.manifest, scale=1.0, layers=layers))

    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
