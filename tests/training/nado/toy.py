"""A language model small enough to enumerate: 4 tokens, responses of at most 4, a table of logits."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

WORDS, LONGEST, STOP, BAD = 4, 4, 0, 3
Tokens = tuple[int, ...]


def prefixes() -> list[Tokens]:
    """Everything that a next token can follow, the empty prefix first."""
    found: list[Tokens] = [()]
    for prefix in found:
        if len(prefix) < LONGEST - 1:
            found += [(*prefix, token) for token in range(WORDS) if token != STOP]
    return found


PREFIXES = prefixes()
PLACE = {prefix: place for place, prefix in enumerate(PREFIXES)}
RESPONSES = [
    (*prefix, token)
    for prefix in PREFIXES
    for token in range(WORDS)
    if token == STOP or len(prefix) == LONGEST - 1
]


def satisfies(response: Tokens) -> float:
    """The oracle: no bad word, and not the same word twice in a row; short of that half a success."""
    twice = any(one == other for one, other in itertools.pairwise(response))
    return 0.0 if BAD in response else 0.5 if twice else 1.0


def hard(response: Tokens) -> float:
    """The oracle with a yes or no."""
    return float(satisfies(response) == 1)


STARTS = [*PREFIXES, *RESPONSES]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """All responses, padded: token ids, mask, and the place of the prefix before each token."""

    ids: Tensor
    mask: Tensor
    before: Tensor


@cache
def rows() -> Rows:
    shape = len(RESPONSES), LONGEST
    ids, before = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    mask = torch.zeros(shape, dtype=torch.bool)
    for row, response in enumerate(RESPONSES):
        for step, token in enumerate(response):
            ids[row, step], before[row, step], mask[row, step] = token, PLACE[response[:step]], True
    return Rows(ids, mask, before)


def random_table(seed: int = 0) -> Tensor:
    """Logits ``(prefixes, words)`` float64."""
    return torch.randn(
        len(PREFIXES), WORDS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def response_logprobs(table: Tensor) -> Tensor:
    """The log-probability of every response, by the product along it."""
    along = rows()
    return (table.log_softmax(dim=1)[along.before, along.ids] * along.mask).sum(dim=1)


def sum_along(log_p: Tensor, response: Tokens) -> Tensor:
    return torch.stack([log_p[PLACE[response[:i]], token] for i, token in enumerate(response)]).sum()


def labels(oracle: object = satisfies) -> Tensor:
    return torch.tensor([oracle(response) for response in RESPONSES], dtype=torch.float64)  # type: ignore[operator]


def success_by_enumeration(table: Tensor, oracle: object = satisfies) -> dict[Tokens, float]:
    """R of every prefix and response: the mean label of the responses that begin so."""
    weights = response_logprobs(table).exp()
    reached, succeeded = starting() @ weights, starting() @ (weights * labels(oracle))
    return dict(zip(STARTS, (succeeded / reached).tolist(), strict=True))


@cache
def starting() -> Tensor:
    """1 where a response ``(..., responses)`` begins like a start ``(starts, ...)``, else 0."""
    begins = [[response[: len(start)] == start for response in RESPONSES] for start in STARTS]
    return torch.tensor(begins, dtype=torch.float64)


def log_success_table(success: dict[Tokens, float]) -> Tensor:
    """log R ``(prefixes, words)`` of every prefix continued by every word."""
    values = [[success[(*prefix, token)] for token in range(WORDS)] for prefix in PREFIXES]
    return torch.tensor(values, dtype=torch.float64).log()
