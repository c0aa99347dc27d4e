from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from guardrail.errors import ConfigError, ModelMissingError
from guardrail.manifest import Manifest, Template, sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling
from guardrail_training.modeling import EncodedExample, ExampleBatch, collate, encode_example, target_logits
from guardrail_training.modeling.losses import IGNORED, token_cross_entropy
from guardrail_training.settings import ALL_LINEAR

TEMPLATE = Template("<|im_start|>user\nDetoxify: {text}<|im_end|>\n<|im_start|>assistant\n")


@pytest.fixture
def tokenizer(tiny_base: Path) -> Any:
    return modeling.load_tokenizer(tiny_base)


@pytest.fixture
def model(tiny_base: Path) -> Any:
    torch.manual_seed(0)
    base = modeling.load_base(tiny_base, dtype=torch.float32)
    return modeling.add_lora(base, rank=4, alpha=8, dropout=0.0, targets=ALL_LINEAR)


@pytest.fixture
def batch(tokenizer: Any) -> ExampleBatch:
    pairs = [("the rude cat", "the cat"), ("rude words of nothing", "words"), ("sat", "the user sat on it")]
    examples = [encode_example(tokenizer, TEMPLATE, source=s, target=t) for s, t in pairs]
    return collate(examples, pad_id=tokenizer.pad_token_id)


def stir(model: Any) -> None:
    """Gives the adapter an effect, as training would."""
    with torch.no_grad():
        for parameter in modeling.trainable_parameters(model):
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def slow_target_logits(model: Any, batch: ExampleBatch) -> tuple[Tensor, Tensor]:
    """Each row alone, without padding, all logits, then the labelled ones one by one."""
    logits, targets = [], []
    for ids, labels in zip(batch.input_ids, batch.labels, strict=True):
        end = int((labels != IGNORED).nonzero().max()) + 1
        row = model(input_ids=ids[None, :end]).logits[0]
        for position in range(1, end):
            if labels[position] != IGNORED:
                logits.append(row[position - 1])
                targets.append(labels[position])
    return torch.stack(logits), torch.stack(targets)


def test_an_example_ends_with_the_end_of_text_id_and_starts_as_it_is_served(tokenizer: Any) -> None:
    example = encode_example(tokenizer, TEMPLATE, source="rude", target="kind")

    assert list(example.prompt) == TEMPLATE.encode(tokenizer, "rude")
    assert tokenizer.decode(example.target) == "kind<|im_end|>"


def test_control_tokens_in_source_and_target_are_ordinary_pieces(tokenizer: Any) -> None:
    example = encode_example(tokenizer, TEMPLATE, source="a<|im_end|>b", target="c<|im_start|>d")

    ends, starts = tokenizer.eos_token_id, tokenizer.bos_token_id
    plain = encode_example(tokenizer, TEMPLATE, source="a", target="c")
    assert example.prompt.count(ends) == plain.prompt.count(ends)
    assert example.target.count(starts) == 0
    assert example.target.count(ends) == 1


def test_labels_lie_on_the_target_and_nowhere_else() -> None:
    batch = collate([EncodedExample((5, 6, 7), (8, 2)), EncodedExample((5, 9), (3, 4, 2))], pad_id=0)

    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 2], [5, 9, 3, 4, 2]]
    assert batch.labels.tolist() == [[IGNORED, IGNORED, IGNORED, 8, 2], [IGNORED, IGNORED, 3, 4, 2]]


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [(((1, 2, 3), (1, 2, 4)), 2), (((1, 2, 3), (1, 2, 3)), 2), (((1,), (1, 2)), 0), (((3, 2), (1, 2)), 0)],
)
def test_the_shared_opening_stops_before_the_last_id_of_any_prompt(
    prompts: tuple[tuple[int, ...], ...], shared: int
) -> None:
    assert collate([EncodedExample(prompt, (9, 2)) for prompt in prompts], pad_id=0).shared == shared


def test_logits_and_gradients_equal_those_of_each_row_alone(model: Any, batch: ExampleBatch) -> None:
    stir(model)
    assert batch.shared > 3

    gradients = []
    for function in (target_logits, slow_target_logits):
        logits, targets = function(model, batch)
        token_cross_entropy(logits, targets).backward()
        gradients.append([parameter.grad.clone() for parameter in modeling.trainable_parameters(model)])
        model.zero_grad()

    fast, slow = target_logits(model, batch), slow_target_logits(model, batch)
    torch.testing.assert_close(fast[0], slow[0], atol=1e-4, rtol=1e-4)
    assert fast[1].tolist() == slow[1].tolist()
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-3)


def test_sharing_the_opening_changes_nothing(model: Any, batch: ExampleBatch) -> None:
    stir(model)

    shared, _ = target_logits(model, batch)
    apart, _ = target_logits(model, replace(batch, shared=0))

    torch.testing.assert_close(shared, apart, atol=1e-4, rtol=1e-4)


def test_a_fresh_adapter_is_a_no_op_and_a_disabled_one_is_the_base(
    tiny_base: Path, model: Any, batch: ExampleBatch
) -> None:
    base, _ = target_logits(modeling.load_base(tiny_base, dtype=torch.float32), batch)

    fresh, _ = target_logits(model, batch)
    stir(model)
    trained, _ = target_logits(model, batch)
    with model.disable_adapter():
        disabled, _ = target_logits(model, batch)

    assert torch.equal(fresh, base)
    assert torch.equal(disabled, base)
    assert not torch.allclose(trained, base, atol=1e-2)


def test_only_the_adapter_is_trainable_and_it_is_float32_on_a_bfloat16_base(tiny_base: Path) -> None:
    base = modeling.load_base(tiny_base, dtype=torch.bfloat16)
    model = modeling.add_lora(base, rank=4, alpha=8, dropout=0.0, targets=ALL_LINEAR)

    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert all(".lora_" in name for name in trainable)
    assert len(trainable) == 2 * 2 * 7  # two layers, a down and an up matrix each
    assert {parameter.dtype for parameter in trainable.values()} == {torch.float32}


def test_a_saved_adapter_is_float16_and_is_what_serving_reads(
    tiny_base: Path, model: Any, tmp_path: Path
) -> None:
    stir(model)

    paths = modeling.save_adapter(model, tmp_path)

    Manifest(
        kind="adapter",
        name="test",
        version="1",
        licence="Apache-2.0",
        files={path.name: sha256_of(path) for path in paths},
        trained_on="0" * 64,
        template=TEMPLATE.literal,
    ).save(tmp_path)
    served = read_adapter(tmp_path)
    assert {value.dtype for value in load_file(paths[0]).values()} == {torch.float16}
    assert served.scale == 2.0
    assert str(tiny_base) not in paths[1].read_text()
    layer = model.get_base_model().model.layers[1].mlp.up_proj
    factors = served.layers["model.layers.1.mlp.up_proj"]
    torch.testing.assert_close(
        torch.from_numpy(factors.up @ factors.down),
        layer.get_delta_weight("default") / 2,
        atol=1e-3,
        rtol=1e-2,
    )


def test_dtype_is_one_of_three_words() -> None:
    assert modeling.resolve_dtype("float32") is torch.float32
    assert modeling.resolve_dtype("bfloat16") is torch.bfloat16
    assert modeling.resolve_dtype("auto") in (torch.float32, torch.bfloat16)
    with pytest.raises(ConfigError, match="float16"):
        modeling.resolve_dtype("float16")


def test_a_folder_without_a_base_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="guardrail models pull"):
        modeling.load_base(tmp_path, dtype=torch.float32)
