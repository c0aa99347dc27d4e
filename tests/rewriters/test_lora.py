"""Rewriting on a tiny random base: laws of adapters, of batches, and of untrusted files."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from guardrail.rewriters.lora import LoraRewriter
from guardrail.rewriters.sampling import Decoding

torch = pytest.importorskip("torch")

# A random model stops at random: long limits and flat sampling let most candidates reach a control token.
DECODING = Decoding(temperature=1.5, top_k=300, top_p=1.0, length_ratio=1.0, spare_tokens=150)
SEGMENTS = [
    "You are a fool.",
    "What a stupid idea this was, and how badly it went for all of us in the end!",
    "Shut up",
    "the cat sat on the mat and said {text} to the <|im_end|> user",
]


def load(adapter: Path, base: Path) -> LoraRewriter:
    return LoraRewriter.load(adapter, base_folder=base, decoding=DECODING)


def logits(rewriter: LoraRewriter, ids: list[int]) -> Any:
    with rewriter._base.applied(rewriter._adapter) as model, torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits.clone()


# ---- what an adapter does to the weights


def test_a_fresh_adapter_leaves_the_base_as_it_is(tiny_base, make_adapter):
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    with torch.inference_mode():
        expected = plain(input_ids=torch.tensor([[5, 6, 7]])).logits
    assert torch.equal(logits(load(make_adapter(), tiny_base), [5, 6, 7]), expected)


# peft asks transformers for a property that transformers deprecates.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_merged_and_unmerged_weights_agree_with_peft(tiny_base, make_adapter):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = make_adapter(seed=1)
    tuned = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32), adapter
    )
    with torch.inference_mode():
        expected = tuned(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    rewriter = load(adapter, tiny_base)
    merged = logits(rewriter, [5, 6, 7, 8])
    other = rewriter.with_adapter(make_adapter(seed=2))
    unmerged = logits(rewriter, [5, 6, 7, 8])
    assert other is not rewriter
    assert not torch.equal(merged, unmerged), (
        "the second adapter should have taken the first out of the weights"
    )
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(unmerged, expected, atol=1e-5, rtol=0)


def test_rank_stabilised_scaling_is_applied(tiny_base, make_adapter):
    plain = load(make_adapter(seed=1, rank=4), tiny_base)
    stabilised = load(make_adapter(seed=1, rank=4, config={"use_rslora": True}), tiny_base)
    assert stabilised._adapter.scale == pytest.approx(2 * plain._adapter.scale)


def test_the_base_is_restored_exactly_once_an_adapter_is_gone(tiny_base, make_adapter):
    rewriter = load(make_adapter(), tiny_base)
    before = logits(rewriter, [5, 6, 7])
    other = rewriter.with_adapter(make_adapter(seed=2))
    logits(other, [5, 6, 7])
    del other
    gc.collect()
    assert torch.equal(logits(rewriter, [5, 6, 7]), before)
