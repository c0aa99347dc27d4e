from __future__ import annotations

from pathlib import Path

import pytest
import torch

from guardrail_training import modeling
from guardrail_training.modeling.families import EncoderDecoder, Family, family_of
from guardrail_training.reinforcement import rollouts
from guardrail_training.reinforcement.rollouts import Responses, noise_for, sample, text_of

PROMPTS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14], [15]]
STOP, PAD = 1, 0


@pytest.fixture
def family(base: Path) -> Family:
    return family_of(modeling.load_base(base, dtype=torch.float32), pad_id=PAD)


def drawn(family: Family, prompts: list[list[int]], seeds: list[int], *, limits: list[int]) -> Responses:
    return sample(
        family,
        family.pad(prompts),
        noise=noise_for(seeds, tokens=max(limits)),
        limits=torch.tensor(limits),
        temperature=0.7,
        stop_id=STOP,
        pad_id=PAD,
    )


def slow_sample(family: Family, prompt: list[int], seed: int, *, limit: int) -> list[int]:
    """One row, without a cache, every token from the whole response so far."""
    tokens: list[int] = []
    noise = noise_for([seed], tokens=limit)[0]
    while len(tokens) < limit and (not tokens or tokens[-1] != STOP):
        read = torch.tensor([[*tokens, 0]])  # the last one is not read
        with torch.no_grad():
            logits = family.head(family.states(family.pad([prompt]), read))[0, -1]
        shares = (logits.double() / 0.7).softmax(dim=0)
        tokens.append(int((shares.cumsum(dim=0) <= noise[len(tokens)]).sum()))
    return tokens


def test_responses_equal_those_of_a_slow_loop_over_rows(family: Family) -> None:
    seeds, limits = [1, 2, 3, 4], [12, 12, 5, 1]

    responses = drawn(family, PROMPTS, seeds, limits=limits)

    for row, (prompt, seed, limit) in enumerate(zip(PROMPTS, seeds, limits, strict=True)):
        expected = slow_sample(family, prompt, seed, limit=limit)
        length = int(responses.lengths[row])
        assert responses.ids[row, :length].tolist() == expected
        assert bool(responses.ended[row]) == (expected[-1] == STOP)
        assert responses.ids[row, length:].tolist() == [PAD] * (responses.ids.shape[1] - length)


def test_a_rows_tokens_depend_on_no_other_row(family: Family) -> None:
    together = drawn(family, PROMPTS, [1, 2, 3, 4], limits=[12] * 4)
    backwards = drawn(family, PROMPTS[::-1], [4, 3, 2, 1], limits=[12] * 4)

    for row in range(4):
        assert together.tokens(row) == backwards.tokens(3 - row)


def test_rows_are_drawn_a_few_at_a_time_whatever_their_number(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = family.pad([[5 + row % 3] * (1 + row % 4) for row in range(10)])
    arguments = {
        "noise": noise_for(range(10), tokens=6),
        "limits": torch.tensor([6, 3, 1, 6, 5, 6, 2, 6, 6, 4]),
        "temperature": 1.0,
        "stop_id": 1,
        "pad_id": 0,
    }

    whole = sample(family, prompts, **arguments)
    monkeypatch.setattr(rollouts, "ROWS", 3)
    parts = sample(family, prompts, **arguments)

    assert torch.equal(whole.ids, parts.ids)
    assert torch.equal(whole.lengths, parts.lengths)
    assert torch.equal(whole.ended, parts.ended)


def test_a_response_ends_with_the_stop_token_or_at_its_limit(family: Family) -> None:
    responses = drawn(family, PROMPTS * 8, list(range(32)), limits=[1 + row % 9 for row in range(32)])

    for row in range(32):
        length = int(responses.lengths[row])
        real = responses.ids[row, :length].tolist()
        assert STOP not in real[:-1]
        assert (real[-1] == STOP) == bool(responses.ended[row])
        assert bool(responses.ended[row]) or length == 1 + row % 9
        assert responses.tokens(row) == [token for token in real if token != STOP]


def test_a_stop_token_that_is_the_padding_too_stays_in_the_mask() -> None:
    responses = Responses(
        ids=torch.tensor([[5, 1, 1, 1], [5, 6, 7, 8]]),
        lengths=torch.tensor([2, 4]),
        ended=torch.tensor([True, False]),
    )

    assert responses.mask.tolist() == [[True, True, False, False], [True, True, True, True]]
    assert responses.tokens(0) == [5]


def test_tokens_are_drawn_with_their_probabilities(family: Family) -> None:
    prompts = family.pad([PROMPTS[0]])
    with torch.no_grad():
        shares = (family.head(family.begin(prompts).states)[0].double() / 0.7).softmax(dim=0)
    rows = 4000

    responses = drawn(family, [PROMPTS[0]] * rows, list(range(rows)), limits=[1] * rows)

    counts = torch.bincount(responses.ids[:, 0], minlength=len(shares)).double()
    chi_square = ((counts - rows * shares) ** 2 / (rows * shares).clamp(min=1e-9)).sum()
    assert float(chi_square) < 70  # 34 degrees of freedom: a chance of one in 3000


def test_noise_is_a_function_of_the_seed() -> None:
    noise = noise_for([3, 4, 3], tokens=5)

    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert noise.dtype == torch.float64


def test_no_response_ends_before_its_minimum(family: Family) -> None:
    def responses(min_tokens: int) -> Responses:
        return sample(
            family,
            family.pad(PROMPTS * 8),
            noise=noise_for(range(32), tokens=12),
            limits=torch.full((32,), 12),
            temperature=1.0,
            stop_id=STOP,
            pad_id=PAD,
            min_tokens=min_tokens,
        )

    assert int(responses(0).lengths.min()) < 5  # the end comes early if it may
    bound = responses(4)
    assert all(STOP not in bound.ids[row, :4].tolist() for row in range(32))
    assert int(bound.lengths.min()) >= 5


def test_special_tokens_stay_in_a_text_if_they_are_to(family: Family) -> None:
    class Tokenizer:
        def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
            return " ".join(str(each) for each in ids if each > STOP or not skip_special_tokens)

    responses = drawn(family, PROMPTS, [1, 2, 3, 4], limits=[12] * 4)

    for row in range(4):
        bare, whole = (
            text_of(family, responses, row, tokenizer=Tokenizer(), keeps_special=keeps)
            for keeps in (False, True)
        )
        begun = [family.start] if isinstance(family, EncoderDecoder) else []
        ids = [*begun, *responses.ids[row, : int(responses.lengths[row])].tolist()]
        assert whole == " ".join(map(str, ids))
        assert bare == " ".join(str(each) for each in ids if each > STOP)
