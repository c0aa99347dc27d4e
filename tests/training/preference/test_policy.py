from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guardrail.errors import ModelFileError
from guardrail.manifest import sha256_of
from guardrail.rewriters.adapter import Adapter, Factors, read_adapter
from guardrail_training import modeling
from guardrail_training.modeling import resume_adapter
from guardrail_training.modeling.families import family_of
from guardrail_training.modeling.stacked import merge
from tests.training.preference.conftest import write_start


def first_logits(model: object) -> torch.Tensor:
    family = family_of(model, pad_id=0)
    with torch.no_grad():
        return family.head(family.begin(family.pad([[3, 4, 5], [6, 7]])).states)


def test_the_policy_begins_as_the_adapter_merged_into_its_base(base: Path, tmp_path: Path) -> None:
    start = write_start(base, tmp_path)
    merged = modeling.load_base(base, dtype=torch.float32)
    untouched = first_logits(merged)
    merge(merged, read_adapter(start))

    model = resume_adapter(modeling.load_base(base, dtype=torch.float32), read_adapter(start))

    found = first_logits(model.get_base_model())
    torch.testing.assert_close(found, first_logits(merged), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, untouched, atol=1e-2)


def test_saved_before_training_it_is_the_file_it_came_from(base: Path, tmp_path: Path) -> None:
    start = write_start(base, tmp_path)

    model = resume_adapter(modeling.load_base(base, dtype=torch.float32), read_adapter(start))

    for path in modeling.save_adapter(model, tmp_path / "again"):
        assert sha256_of(path) == sha256_of(start / path.name)


def test_only_the_adapter_is_trained_in_float32_on_a_base_in_bfloat16(llama_base: Path, start: Path) -> None:
    model = resume_adapter(modeling.load_base(llama_base, dtype=torch.bfloat16), read_adapter(start))

    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name and p.dtype is torch.float32 for name, p in trained.items())


@pytest.mark.parametrize("name", ["encoder.absent.layer", ""])
def test_an_adapter_that_does_not_fit_is_an_error_that_names_the_layer(
    llama_base: Path, start: Path, name: str
) -> None:
    whole = read_adapter(start)
    layer, factors = next(iter(whole.layers.items()))
    broken = Factors(down=factors.down[:, 1:], up=factors.up) if not name else factors
    odd = Adapter(whole.manifest, scale=whole.scale, layers={name or layer: broken})

    with pytest.raises(ModelFileError, match=f"changes '{name or layer}'.*for another base"):
        resume_adapter(modeling.load_base(llama_base, dtype=torch.float32), odd)
