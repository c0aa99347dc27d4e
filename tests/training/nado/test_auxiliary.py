"""The auxiliary model: neutral until trained, reads no later token, comes back from its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from guardrail.errors import ModelFileError, ModelMissingError
from guardrail_training.nado.auxiliary import load_auxiliary, save_auxiliary
from guardrail_training.reinforcement.policy import Learner
from tests.training.nado.conftest import auxiliary_of, base_of, guidance_of


def test_until_trained_it_has_one_success_everywhere_and_guides_nothing(learner: Learner) -> None:
    auxiliary = auxiliary_of(learner)
    auxiliary.start_at(0.8)
    states, logits = torch.randn(5, 3, 32), torch.randn(5, 35)

    found = auxiliary(states, torch.arange(35).expand(5, 3, -1)).sigmoid()

    torch.testing.assert_close(found, torch.full((5, 3, 35), 0.8))
    torch.testing.assert_close(guidance_of(auxiliary).logits(states, logits), logits.log_softmax(dim=1))


def test_a_candidate_has_its_success_whatever_the_others_are(learner: Learner) -> None:
    auxiliary = auxiliary_of(learner, stirred=True)
    states = torch.randn(3, 4, 32)

    every = auxiliary(states, torch.arange(35).expand(3, 4, -1))
    few = auxiliary(states, torch.tensor([7, 30, 2]).expand(3, 4, -1))

    torch.testing.assert_close(few, every[..., [7, 30, 2]])
    assert every.std() > 0.1


def test_no_position_sees_a_later_one_and_the_last_may_be_asked_alone(learner: Learner) -> None:
    auxiliary = auxiliary_of(learner, stirred=True)
    states, ids = torch.randn(2, 6, 32), torch.arange(9).expand(2, 6, -1)
    whole = auxiliary(states, ids)

    for time in (1, 4):
        torch.testing.assert_close(auxiliary(states[:, :time], ids[:, :time]), whole[:, :time])
        torch.testing.assert_close(auxiliary.last(states[:, :time], ids[:, time]), whole[:, time - 1])


def test_the_bases_embeddings_are_read_but_neither_trained_nor_saved(learner: Learner) -> None:
    auxiliary = auxiliary_of(learner, stirred=True)

    auxiliary(torch.randn(3, 2, 32), torch.arange(9).expand(3, 2, -1)).sum().backward()

    assert "embeddings" not in auxiliary.state_dict()
    assert auxiliary.embeddings.data_ptr() == base_of(learner).get_input_embeddings().weight.data_ptr()
    assert auxiliary.embeddings.grad is None
    assert all(parameter.grad is not None for parameter in auxiliary.parameters())


def test_it_comes_back_from_its_files(learner: Learner, tmp_path: Path) -> None:
    auxiliary = auxiliary_of(learner, stirred=True)
    states, ids = torch.randn(3, 2, 32), torch.arange(9).expand(3, 2, -1)

    files = save_auxiliary(auxiliary, tmp_path, base_sha256="b" * 64)
    back = load_auxiliary(tmp_path, model=base_of(learner), base_sha256="b" * 64)

    assert sorted(path.name for path in files) == ["auxiliary.json", "auxiliary.safetensors"]
    torch.testing.assert_close(back(states, ids), auxiliary(states, ids))
    assert not any(parameter.requires_grad for parameter in back.parameters())


def test_a_missing_or_changed_file_or_another_base_is_an_error(learner: Learner, tmp_path: Path) -> None:
    base = base_of(learner)
    with pytest.raises(ModelMissingError, match="guardrail-train regularized"):
        load_auxiliary(tmp_path, model=base, base_sha256="b" * 64)
    weights, description = save_auxiliary(auxiliary_of(learner), tmp_path, base_sha256="b" * 64)
    with pytest.raises(ModelFileError, match="reads another base"):
        load_auxiliary(tmp_path, model=base, base_sha256="c" * 64)

    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"sha256": "0" * 64}))
    with pytest.raises(ModelFileError, match=f"{weights.name} is not the file"):
        load_auxiliary(tmp_path, model=base, base_sha256="b" * 64)
