"""Decoding against a slow loop that reads the whole text again for every token, one row at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardrail.errors import ConfigError
from guardrail.rewriters.decode import decode, log_probabilities
from guardrail.rewriters.sampling import Decoding, Prompt, gumbel, noise_key

torch = pytest.importorskip("torch")

STOP = frozenset({0, 1, 2})
DECODING = Decoding(temperature=1.3, top_k=40, top_p=0.9)
PROMPTS = [
    Prompt(ids=(1, 40, 50, 60, 2, 1), limit=60, seed=b"a"),
    Prompt(ids=(1, 70, 2), limit=80, seed=b"b"),
    Prompt(ids=tuple(range(3, 40)), limit=40, seed=b"c"),
]


@pytest.fixture(scope="module")
def model(tiny_base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)


def continue_slowly(model: Any, prompt: Prompt, candidate: int) -> list[int] | None:
    """One continuation by the textbook: nothing cached, padded or batched. None where it was cut off."""
    tokens: list[int] = []
    while len(tokens) < prompt.limit:
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt.ids, *tokens]])).logits[0, -1].double().numpy()
        token = (
            int(logits.argmax()) if candidate == 0 else sample_slowly(logits, prompt, candidate, len(tokens))
        )
        if token in STOP:
            return tokens
        tokens.append(token)
    return None


def sample_slowly(logits: Any, prompt: Prompt, candidate: int, step: int) -> int:
    order = np.argsort(-logits)[: DECODING.top_k]
    weights = np.exp(logits[order] / DECODING.temperature)
    weights /= weights.sum()
    nucleus: list[int] = []
    held = 0.0
    for token, weight in zip(order, weights, strict=True):
        if held >= DECODING.top_p:
            break
        nucleus.append(int(token))
        held += weight
    keys, steps = np.array([noise_key(prompt.seed, candidate)]), np.array([step], dtype=np.uint64)
    noise = gumbel(keys, steps, np.array([nucleus], dtype=np.uint64))[0]
    return max(
        zip(nucleus, noise, strict=True), key=lambda pair: logits[pair[0]] / DECODING.temperature + pair[1]
    )[0]


def test_a_padded_batch_with_a_shrinking_cache_gives_what_the_slow_loop_gives(model):
    found = decode(model, PROMPTS, n=5, stop=STOP, decoding=DECODING)
    slow = [[continue_slowly(model, prompt, candidate) for candidate in range(5)] for prompt in PROMPTS]
    assert found == [[tokens for tokens in candidates if tokens is not None] for candidates in slow]
    assert sum(map(len, found)) >= 5, "too few candidates stop for this test to mean anything"


def test_a_continuation_without_a_stop_within_its_limit_is_dropped(model):
    assert decode(model, PROMPTS, n=3, stop=frozenset(), decoding=DECODING) == [[], [], []]


def test_a_stop_at_the_first_token_gives_an_empty_continuation(model):
    assert decode(model, PROMPTS[:1], n=2, stop=frozenset(range(300)), decoding=DECODING) == [[[], []]]


def test_the_noise_has_the_mean_and_variance_of_a_gumbel_distribution():
    keys = np.arange(1000, dtype=np.uint64)
    noise = gumbel(keys, np.zeros(1000, np.uint64), np.tile(np.arange(50, dtype=np.uint64), (1000, 1)))
    assert noise.mean() == pytest.approx(np.euler_gamma, abs=0.02)
    assert noise.var() == pytest.approx(math.pi**2 / 6, rel=0.03)
    assert np.unique(noise).size == noise.size


def test_sampling_by_the_noise_follows_the_probabilities():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    draws = 20_000
    keys = np.array([noise_key(b"segment", candidate) for candidate in range(draws)])
    tokens = np.tile(np.arange(4, dtype=np.uint64), (draws, 1))
    chosen = (np.log(probabilities) + gumbel(keys, np.full(draws, 7, np.uint64), tokens)).argmax(axis=1)
    shares = np.bincount(chosen, minlength=4) / draws
    assert shares == pytest.approx(probabilities, abs=0.015)


@pytest.mark.parametrize("name", ["temperature", "top_k", "top_p", "length_ratio", "rows", "batch_tokens"])
def test_a_setting_of_zero_is_an_error_that_names_it(name):
    with pytest.raises(ConfigError, match=name):
        Decoding(**{name: 0})


@pytest.mark.parametrize("continuation", [[], [5], [40, 50, 60, 70]])
def test_every_token_has_its_log_probability_and_the_end_too(model: Any, continuation: list[int]) -> None:
    chances = []
    for done in range(len(continuation) + 1):
        with torch.inference_mode():
            read = model(input_ids=torch.tensor([[*PROMPTS[0].ids, *continuation[:done]]])).logits[0, -1]
        following = read.softmax(dim=-1)
        expected = [continuation[done]] if done < len(continuation) else sorted(STOP)
        chances.append(float(following[expected].sum()))
    found = log_probabilities(model, PROMPTS[0].ids, continuation, stop=STOP)
    assert np.exp(found) == pytest.approx(chances, rel=1e-4)
