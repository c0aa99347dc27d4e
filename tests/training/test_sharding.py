"""Which weights are shared out over processes, what they must do together, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from guardrail.errors import ConfigError
from guardrail_training import modeling, sft
from guardrail_training.processes import Processes
from guardrail_training.reinforcement.rollouts import noise_for, sample
from guardrail_training.sharding import is_sharding_asked_for, shard_blocks
from tests.training.reinforcement.conftest import load_learner, tiny_t5, write_base
from tests.training.supervised.conftest import LAYERS, MODELS, small_run

CPU = torch.device("cpu")
NUMBERED = re.compile(r"\.\d+\.")  # a block is one of many


@pytest.fixture
def four_processes() -> Iterator[None]:
    """This process as the first of four, of which the others are not there: nothing can be sent."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    yield
    torch.distributed.destroy_process_group()


def sharded(count: int, *, index: int = 0) -> Processes:
    """One of several processes that shard a base, without the others."""
    processes = Processes(can_shard=True)
    processes.index, processes.count, processes.is_sharded = index, count, True
    return processes


@pytest.mark.usefixtures("four_processes")
@pytest.mark.parametrize("name", MODELS)
def test_a_process_keeps_a_quarter_of_the_frozen_blocks_and_all_that_is_trained(name: str) -> None:
    model = modeling.add_lora(
        MODELS[name]().float().requires_grad_(False), rank=4, alpha=8, dropout=0.0, targets=LAYERS[name]
    )
    before = modeling.count_parameters(model)
    trained = modeling.trainable_parameters(model)

    shard_blocks(model, processes=4, device=CPU)

    assert modeling.count_parameters(model) == before
    assert [id(one) for one in modeling.trainable_parameters(model)] == [id(one) for one in trained]
    shares = {name: one for name, one in model.named_parameters() if isinstance(one, DTensor)}
    frozen = {name for name, one in model.named_parameters() if not one.requires_grad}
    assert set(shares) == {name for name in frozen if NUMBERED.search(name)}
    for one in shares.values():
        if one.shape[0] % 4 == 0:
            assert one.to_local().numel() == one.numel() / 4


def test_a_model_that_does_not_name_its_blocks_is_an_error() -> None:
    model = modeling.add_lora(tiny_t5(), rank=4, alpha=8, dropout=0.0, targets=LAYERS["t5"])
    model.get_base_model()._no_split_modules = None

    with pytest.raises(ConfigError, match="T5ForConditionalGeneration does not name its blocks"):
        shard_blocks(model, processes=2, device=CPU)


def test_processes_with_fewer_rows_take_empty_turns_where_the_base_is_sharded() -> None:
    turns = [list(sharded(3, index=index).turns(range(7), size=2)) for index in range(3)]

    assert turns == [[range(0, 6, 3), range(6, 9, 3)], [range(1, 7, 3), range(0)], [range(2, 8, 3), range(0)]]


def test_alone_turns_are_the_rows_in_order() -> None:
    assert list(Processes().turns("abcde", size=2)) == ["ab", "cd", "e"]


def test_a_process_that_has_drawn_its_responses_reads_on_until_all_have(tmp_path: Path) -> None:
    family = load_learner(write_base(tmp_path / "t5", tiny_t5())).family
    how: dict[str, Any] = {
        "noise": noise_for([1, 2], tokens=6),
        "limits": torch.tensor([2, 3]),
        "temperature": 1.0,
        "stop_id": 1,
        "pad_id": 0,
    }
    prompts = family.pad([[3, 4], [5]])
    told: list[bool] = []

    def until_the_sixth(wanted: bool) -> bool:
        told.append(wanted)
        return len(told) <= 5

    alone = sample(family, prompts, **how)
    together = sample(family, prompts, is_pass_due=until_the_sixth, **how)

    assert told == [True, True, False, False, False, False]
    torch.testing.assert_close(together.ids, alone.ids)
    assert together.lengths.tolist() == alone.lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FSDP_VERSION", "1", "FSDP_VERSION = 1 in accelerate's configuration is not followed: set it to 2"),
        ("FSDP_OFFLOAD_PARAMS", "true", "FSDP_OFFLOAD_PARAMS = true .*: set it to false"),
        ("FSDP_IGNORED_MODULES", "lm_head", "FSDP_IGNORED_MODULES = lm_head .*: leave it out"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed, which is not supported"),
    ],
)
def test_what_would_not_be_followed_is_refused(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert is_sharding_asked_for()
    monkeypatch.setenv(name, value)

    with pytest.raises(ConfigError, match=message):
        is_sharding_asked_for()


def test_a_trainer_that_cannot_shard_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")

    with pytest.raises(ConfigError, match="cannot shard a base"):
        Processes()
    assert not Processes(can_shard=True).is_sharded


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tuning": "full"}, "tuning = 'lora' alone"), ({"quantisation": "nf4"}, "'nf4' cannot be sharded")],
)
def test_only_a_frozen_base_that_is_not_quantised_is_sharded(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sft, "Processes", lambda **_: sharded(2))
    base = write_base(tmp_path / "base", tiny_t5())

    with pytest.raises(ConfigError, match=message):
        sft.run(small_run("t5", base, tmp_path / "run", **changes))
