"""Draws responses: plain samples at a temperature, each row its own noise, stop and limit.

No top-k, no top-p, no least length and no repetition penalty: a policy that is scored on other probabilities
than it is sampled from has a wrong ratio and a wrong KL. The rewriter's decoding for serving is another
thing: it truncates, returns several candidates without their probabilities and drops those that do not end,
so nothing of it is used here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail_training.modeling.families import Family, Prompts
from guardrail_training.reinforcement.logprobs import scaled_logits

__all__ = ["Responses", "noise_for", "sample"]

ROWS = 64
"""Rows that are drawn at a time: enough for matrix products near their peak; more only cost memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """Drawn tokens: ``ids`` ``(rows, time)`` int64, padded on the right, and how many of them are real.

    ``ended`` ``(rows,)`` is true where the last real token is the stop token, false where the limit came
    first.
    """

    ids: Tensor
    lengths: Tensor
    ended: Tensor

    @property
    def mask(self) -> Tensor:
        """True at real tokens ``(rows, time)``: from the lengths, since a stop token may be the padding."""
        return torch.arange(self.ids.shape[1]) < self.lengths[:, None]

    def tokens(self, row: int) -> list[int]:
        """The tokens of one response without its stop token."""
        length = int(self.lengths[row]) - int(self.ended[row])
        return [int(token) for token in self.ids[row, :length]]


def noise_for(seeds: Sequence[int], *, tokens: int) -> Tensor:
    """Uniform numbers ``(rows, tokens)`` float64 in [0, 1), each row from its own seed alone."""
    rows = [
        torch.rand(tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    return torch.stack(rows)


@torch.no_grad()
def sample(
    family: Family,
    prompts: Prompts,
    *,
    noise: Tensor,
    limits: Tensor,
    temperature: float,
    stop_id: int,
    pad_id: int,
    is_pass_due: Callable[[bool], bool] = bool,
) -> Responses:
    """One response per prompt: a pure function of the model, the prompts and ``noise`` ``(rows, steps)``.

    A row ends with the stop token or with its limit of tokens (``limits``, ``(rows,)``, at most ``steps``)
    and leaves the batch, which gets cheaper as rows end. A row's noise decides its tokens whatever else is in
    the batch. ``is_pass_due`` is told whether another pass is wanted and says whether to make one: of a model
    that is sharded over processes, all of them make as many.
    """
    # Prompts of like lengths together: the less padding to read and to remember.
    by_length = prompts.mask.sum(dim=1).argsort(stable=True)
    ids = torch.full((len(prompts), int(limits.max())), pad_id)
    lengths = torch.zeros(len(prompts), dtype=torch.int64)
    ended = torch.zeros(len(prompts), dtype=torch.bool)
    for rows in torch.split(by_length, ROWS):
        under_way = family.begin(prompts.select(rows))
        alive = rows
        for step in range(ids.shape[1]):
            logits = scaled_logits(under_way.states, family.head, temperature=temperature)
            tokens = _draw(logits, noise[alive, step])
            ids[alive, step] = tokens
            lengths[alive] += 1
            stopped = tokens == stop_id
            ended[alive[stopped]] = True
            going = ~stopped & (lengths[alive] < limits[alive])
            if not bool(going.any()):
                break
            if not bool(going.all()):
                kept = going.nonzero()[:, 0]
                under_way.keep(kept)
                alive, tokens = alive[kept], tokens[kept]
            is_pass_due(True)
            under_way.advance(tokens)
        while is_pass_due(False):
            under_way.advance(tokens)
    return Responses(ids=ids[:, : int(lengths.max())], lengths=lengths, ended=ended)


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative probability passes the uniform number, ``(rows,)``."""
    # In float64: the sums over a vocabulary of 49k would lose the tail in float32.
    sums = logits.double().softmax(dim=1).cumsum(dim=1)
    # Rounding may leave the whole slightly off 1, so the number is taken as a share of it.
    passed = torch.searchsorted(sums, (uniform * sums[:, -1])[:, None], right=True)[:, 0]
    return passed.clamp(max=logits.shape[1] - 1)
