"""Decoding from the posterior, in transformers' generate and in this package's sampler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList

from guardrail.errors import UsageError
from guardrail_training import modeling
from guardrail_training.modeling.families import family_of
from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.nado.decoding import GuardedDecoding, GuardedFamily, _Rows
from guardrail_training.nado.guidance import Guidance
from guardrail_training.reinforcement.rollouts import noise_for, sample

PROMPTS = [[5, 6, 7], [9], [12, 30]]
LETTER_D = range(3 + 24, 3 + 32)


class Dislikes(Auxiliary):
    """Rates the words of the letter d as lost, all others as sure."""

    def last(self, states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return torch.where(ids >= LETTER_D[0], -14.0, 14.0).float()


@pytest.fixture
def model(llama_base: Path) -> Any:
    return modeling.load_base(llama_base, dtype=torch.float32)


def guidance(model: Any, kind: type[Auxiliary] = Auxiliary) -> Guidance:
    auxiliary = kind(model.get_input_embeddings().weight, hidden=16, blocks=1, rank=4)
    return Guidance(auxiliary, strength=1.0, max_log_ratio=12.0, candidates=35)


def generated(model: Any, processor: GuardedDecoding | None = None, **how: Any) -> torch.Tensor:
    padded = family_of(model, pad_id=0).pad(PROMPTS)
    torch.manual_seed(0)
    settings = {"max_new_tokens": 6, "pad_token_id": 0, "use_cache": True, "do_sample": False} | how
    chosen = LogitsProcessorList([processor] if processor else [])
    tokens: torch.Tensor = model.generate(
        input_ids=padded.ids, attention_mask=padded.mask.long(), logits_processor=chosen, **settings
    )
    return tokens[:, padded.ids.shape[1] :]


@pytest.mark.parametrize(
    "how", [{}, {"do_sample": True}, {"num_beams": 3}], ids=["greedy", "sampled", "beams"]
)
def test_an_untrained_auxiliary_model_changes_no_token(model: Any, how: dict[str, Any]) -> None:
    processor = GuardedDecoding(guidance(model), model=model)

    with processor.attached():
        found = generated(model, processor, **how)

    assert torch.equal(found, generated(model, **how))


@pytest.mark.parametrize("how", [{}, {"do_sample": True}, {"num_beams": 3}])
def test_words_that_lead_to_failure_are_not_generated(model: Any, how: dict[str, Any]) -> None:
    processor = GuardedDecoding(guidance(model, Dislikes), model=model)

    with processor.attached():
        found = generated(model, processor, **how)

    assert not any(int(token) in LETTER_D for token in found.flatten())


def test_the_processor_and_the_sampler_follow_the_same_distribution(model: Any) -> None:
    stirred = guidance(model)
    with torch.no_grad():
        for parameter in stirred.auxiliary.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    processor, family = GuardedDecoding(stirred, model=model), family_of(model, pad_id=0)
    padded = family.pad(PROMPTS)

    with torch.no_grad(), processor.attached():
        logits = model(input_ids=padded.ids, attention_mask=padded.mask.long()).logits[:, -1]
        one = processor(padded.ids, logits)
        guarded = GuardedFamily(family, stirred)
        other = guarded.head(guarded.begin(padded).states)

    torch.testing.assert_close(one[0], other[0], atol=1e-4, rtol=1e-4)  # the longest: without padding
    assert (one - logits.log_softmax(dim=1)).abs().max() > 0.1
    torch.testing.assert_close(one.exp().sum(dim=1), torch.ones(len(PROMPTS)))


@pytest.mark.parametrize("kind", [Auxiliary, Dislikes])
def test_the_sampler_draws_guarded_responses(model: Any, kind: type[Auxiliary]) -> None:
    plain = family_of(model, pad_id=0)
    how = {
        "noise": noise_for(range(3), tokens=12),
        "limits": torch.tensor([12] * 3),
        "temperature": 1.0,
        "stop_id": 1,
        "pad_id": 0,
    }

    found = sample(GuardedFamily(plain, guidance(model, kind)), plain.pad(PROMPTS), **how)  # type: ignore[arg-type]
    before = sample(plain, plain.pad(PROMPTS), **how)  # type: ignore[arg-type]

    if kind is Dislikes:
        assert not any(int(token) in LETTER_D for token in found.ids.flatten())
        assert any(int(token) in LETTER_D for token in before.ids.flatten())
    else:
        assert torch.equal(found.ids, before.ids)


def test_outside_its_block_the_processor_is_an_error(model: Any) -> None:
    processor = GuardedDecoding(guidance(model), model=model)
    with processor.attached():
        generated(model, processor)

    with pytest.raises(UsageError, match=r"generate inside 'with guarded\.attached\(\)'"):
        generated(model, processor)


def test_beams_that_change_places_take_their_states_along() -> None:
    first = _Rows.after(None, torch.tensor([[4, 5], [4, 6]]), torch.tensor([[1.0], [2.0]]))

    second = _Rows.after(first, torch.tensor([[4, 6, 7], [4, 6, 8]]), torch.tensor([[3.0], [4.0]]))
    again = _Rows.after(second, torch.tensor([[9, 9]]), torch.tensor([[5.0]]))

    assert second.states[..., 0].tolist() == [[2.0, 3.0], [2.0, 4.0]]
    assert again.states[..., 0].tolist() == [[5.0]]
