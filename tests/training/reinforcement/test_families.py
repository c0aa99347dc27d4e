"""Every family against the model's own forward pass, row by row and without padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.activations import NewGELUActivation

from guardrail.errors import ConfigError
from guardrail_training.modeling import caches, fuse_activations
from guardrail_training.modeling.families import Family, Prompts, family_of
from tests.training.reinforcement.conftest import WORDS, tiny_llama, tiny_t5

VOCABULARY = 3 + len(WORDS)
PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
RESPONSES = torch.tensor([[20, 21, 22, 1], [23, 24, 1, 0], [25, 1, 0, 0]])
LENGTHS = [4, 3, 2]


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64))


def bloom() -> Any:
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4))


def phi() -> Any:
    from transformers import PhiConfig, PhiForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    return PhiForCausalLM(PhiConfig(vocab_size=VOCABULARY, **sizes))


def bart() -> Any:
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(0)
    sizes = {f"{side}_{name}": size for side in ("encoder", "decoder") for name, size in
             (("layers", 2), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
    model = BartForConditionalGeneration(BartConfig(vocab_size=VOCABULARY, d_model=32, **sizes))
    model.final_logits_bias += torch.randn(1, VOCABULARY)
    return model


def flan_t5() -> Any:
    return tiny_t5(tie_word_embeddings=False, feed_forward_proj="gated-gelu")


MODELS: dict[str, Callable[[], Any]] = {
    "llama": tiny_llama,
    "gpt2": gpt2,
    "bloom": bloom,
    "phi": phi,
    "t5": tiny_t5,
    "flan-t5": flan_t5,
    "bart": bart,
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]().eval()


@pytest.fixture
def family(model: Any) -> Family:
    return family_of(model, pad_id=0)


def alone(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """The logits before each token of one response, from the model itself."""
    if model.config.is_encoder_decoder:
        read = torch.tensor([[model.config.decoder_start_token_id, *response[:-1]]])
        logits: Tensor = model(input_ids=torch.tensor([prompt]), decoder_input_ids=read).logits[0]
        return logits
    logits = model(input_ids=torch.tensor([prompt + response])).logits[0]
    return logits[len(prompt) - 1 : -1]


def test_logits_before_every_token_equal_those_of_the_row_alone(model: Any, family: Family) -> None:
    with torch.no_grad():
        logits = family.head(family.states(family.pad(PROMPTS), RESPONSES))

        for row, length in enumerate(LENGTHS):
            expected = alone(model, PROMPTS[row], RESPONSES[row, :length].tolist())
            torch.testing.assert_close(logits[row, :length], expected, atol=1e-4, rtol=1e-4)


def test_token_by_token_gives_what_reading_the_whole_response_gives(family: Family) -> None:
    with torch.no_grad():
        prompts = family.pad(PROMPTS)
        whole = family.states(prompts, RESPONSES)
        under_way = family.begin(prompts)
        torch.testing.assert_close(under_way.states, whole[:, 0], atol=1e-5, rtol=1e-4)
        under_way.advance(RESPONSES[:, 0])
        torch.testing.assert_close(under_way.states, whole[:, 1], atol=1e-5, rtol=1e-4)
        left = torch.tensor([0, 1])
        under_way.keep(left)
        under_way.advance(RESPONSES[left, 1])
        torch.testing.assert_close(under_way.states, whole[left, 2], atol=1e-5, rtol=1e-4)


def test_what_stands_in_the_padding_of_prompts_changes_nothing(family: Family) -> None:
    prompts = family.pad(PROMPTS)
    other = Prompts(ids=prompts.ids.masked_fill(~prompts.mask, 17), mask=prompts.mask)
    with torch.no_grad():
        torch.testing.assert_close(
            family.states(prompts, RESPONSES), family.states(other, RESPONSES), atol=1e-5, rtol=1e-4
        )


SHARED = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[0]]
OTHERS = torch.tensor([[20, 21, 22, 1], [23, 24, 1, 0], [25, 1, 0, 0], [23, 21, 24, 26]])


def read_rows(model: Any) -> list[int]:
    """How many prompts each pass of the model's first block has read, as it goes on."""
    rows: list[int] = []
    blocks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    blocks[0][0].register_forward_pre_hook(lambda _, arguments: rows.append(len(arguments[0])))
    return rows


def test_a_prompt_of_several_responses_is_read_once_for_all_of_them(model: Any, family: Family) -> None:
    prompts = family.pad(SHARED)
    with torch.no_grad():
        each = [
            family.states(family.pad([prompt]), OTHERS[row : row + 1])[0] for row, prompt in enumerate(SHARED)
        ]
        rows = read_rows(model)
        states = family.states(prompts, OTHERS)
        assert rows[0] == 2

        for row, length in enumerate([4, 3, 2, 4]):
            torch.testing.assert_close(states[row, :length], each[row][:length], atol=1e-4, rtol=1e-4)
        rows.clear()
        under_way = family.begin(prompts)
        torch.testing.assert_close(under_way.states, states[:, 0], atol=1e-5, rtol=1e-4)
        under_way.advance(OTHERS[:, 0])
        torch.testing.assert_close(under_way.states, states[:, 1], atol=1e-5, rtol=1e-4)


def test_a_prompt_that_is_read_once_learns_from_all_of_its_responses(model: Any, family: Family) -> None:
    def gradients(parts: list[list[int]]) -> list[Tensor]:
        model.zero_grad()
        for part in parts:
            states = family.states(family.pad([SHARED[row] for row in part]), OTHERS[part])
            family.head(states).log_softmax(dim=-1)[:, :2].square().sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    together, apart = gradients([[0, 1, 2, 3]]), gradients([[0], [1], [2], [3]])

    assert len(together) == len(apart) > 0
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, atol=1e-2, rtol=1e-3)


def test_distinct_prompts_stay_in_order_and_padding_counts_for_nothing() -> None:
    ids = torch.tensor([[9, 5, 6], [0, 0, 7], [3, 5, 6], [0, 0, 7], [0, 5, 6]])
    mask = torch.tensor([[0, 1, 1], [0, 0, 1], [0, 1, 1], [0, 0, 1], [1, 1, 1]], dtype=torch.bool)

    found, places = Prompts(ids=ids, mask=mask).distinct()

    assert found.ids.tolist() == [[9, 5, 6], [0, 0, 7], [0, 5, 6]]
    assert places.tolist() == [0, 1, 0, 1, 2]


def test_causal_prompts_end_and_encoder_prompts_begin_in_one_column() -> None:
    left = family_of(tiny_llama().eval(), pad_id=0).pad([[5, 6, 7], [8]])
    right = family_of(tiny_t5().eval(), pad_id=0).pad([[5, 6, 7], [8]])

    assert left.ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert left.mask.tolist() == [[True, True, True], [False, False, True]]
    assert right.ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert right.mask.tolist() == [[True, True, True], [True, False, False]]


def test_a_prompt_may_hold_the_padding_token_as_an_ordinary_one(model: Any, family: Family) -> None:
    prompts = [[5, 0, 7], [0]]
    with torch.no_grad():
        logits = family.head(family.states(family.pad(prompts), RESPONSES[:2, :1]))

        for row, prompt in enumerate(prompts):
            expected = alone(model, prompt, RESPONSES[row, :1].tolist())
            torch.testing.assert_close(logits[row], expected, atol=1e-4, rtol=1e-4)


def test_selected_prompts_lose_the_columns_that_are_padding_in_all() -> None:
    prompts = family_of(tiny_llama().eval(), pad_id=0).pad(PROMPTS)

    chosen = prompts.select(torch.tensor([2, 1]))

    assert chosen.ids.tolist() == [[12, 13, 14], [0, 10, 11]]
    assert chosen.mask.tolist() == [[True, True, True], [False, True, True]]


def test_an_architecture_that_changes_its_logits_after_the_head_is_refused() -> None:
    from transformers import CohereConfig, CohereForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = CohereConfig(vocab_size=VOCABULARY, logit_scale=0.1, initializer_range=0.5, **sizes)
    config.pad_token_id = config.bos_token_id = config.eos_token_id = 1
    with pytest.raises(ConfigError, match="CohereForCausalLM changes its logits after its output layer"):
        family_of(CohereForCausalLM(config).eval(), pad_id=0)


def test_prompts_that_are_read_apart_give_what_they_give_together(model: Any, family: Family) -> None:
    apart = family_of(model, pad_id=0, pass_cost=0)
    prompts = family.pad([*PROMPTS, PROMPTS[1]])
    tokens = torch.tensor([20, 23, 25, 22])

    with torch.no_grad():
        one, other = family.begin(prompts), apart.begin(prompts)
        for _ in range(3):
            torch.testing.assert_close(other.states, one.states, atol=1e-5, rtol=1e-5)
            one.advance(tokens)
            other.advance(tokens)
        kept = torch.tensor([2, 0])
        one.keep(kept)
        other.keep(kept)
        one.advance(tokens[kept])
        other.advance(tokens[kept])

    torch.testing.assert_close(other.states, one.states, atol=1e-5, rtol=1e-5)


def test_a_long_response_outgrows_the_room_that_is_kept_for_it(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caches, "FIRST_ROOM", 1)
    prompts, response = family.pad(PROMPTS[:1]), torch.arange(3, 23)[None]
    with torch.no_grad():
        expected = family.states(prompts, response)[0]

        under_way = family.begin(prompts)
        found = [under_way.states]
        for token in response[0, :-1]:
            under_way.advance(token[None])
            found.append(under_way.states)

    torch.testing.assert_close(torch.cat(found), expected, atol=1e-5, rtol=1e-4)


def test_a_fused_activation_gives_the_same_logits() -> None:
    model, ids = flan_t5().eval(), torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        before = model(input_ids=ids, decoder_input_ids=ids).logits
        fuse_activations(model)
        after = model(input_ids=ids, decoder_input_ids=ids).logits

    assert not any(isinstance(module, NewGELUActivation) for module in model.modules())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
