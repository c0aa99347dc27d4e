"""N-best decoding of many prompts at once with torch, one greedy and the rest sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guardrail.rewriters.sampling import Decoding, Prompt, choose, noise_key

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["decode", "log_probabilities"]


@dataclass(slots=True)
class _Row:
    prompt: int
    candidate: int
    key: np.uint64
    limit: int
    tokens: list[int] = field(default_factory=list)


def decode(
    model: Any, prompts: Sequence[Prompt], *, n: int, stop: frozenset[int], decoding: Decoding
) -> list[list[list[int]]]:
    """Up to ``n`` continuations per prompt, the greedy one first, each without its stop token.

    A continuation that reaches its limit without stopping is cut off in mid-sentence and therefore dropped.
    The prompts share one left-padded batch; the caller decides which prompts are worth decoding together.
    """
    import torch

    rows = [
        _Row(index, candidate, noise_key(prompt.seed, candidate), prompt.limit)
        for index, prompt in enumerate(prompts)
        for candidate in range(n)
    ]
    finished: list[_Row] = []
    with torch.inference_mode():
        state = _State.after_prompts(model, [prompt.ids for prompt in prompts], n)
        while rows:
            unfinished = []
            tokens = _choose(state.logits, rows, decoding)
            for index, (row, token) in enumerate(zip(rows, tokens, strict=True)):
                if token in stop:
                    finished.append(row)
                    continue
                row.tokens.append(token)
                if len(row.tokens) < row.limit:
                    unfinished.append(index)
            rows = [rows[index] for index in unfinished]
            if rows:
                state.advance(model, unfinished, [row.tokens[-1] for row in rows])
    finished.sort(key=lambda row: (row.prompt, row.candidate))
    return [[row.tokens for row in finished if row.prompt == index] for index in range(len(prompts))]


def log_probabilities(
    model: Any, prompt: Sequence[int], continuation: Sequence[int], *, stop: frozenset[int]
) -> npt.NDArray[np.float32]:
    """The log-probability of each token of a continuation after its prompt, and of its end."""
    import torch

    ids = torch.tensor([[*prompt, *continuation]])
    with torch.inference_mode():
        logits = model(input_ids=ids, logits_to_keep=len(continuation) + 1).logits[0]
        logs = logits.log_softmax(dim=-1)  # (continuation + 1, vocabulary)
        own = logs[:-1].gather(1, torch.tensor(continuation, dtype=torch.int64)[:, None])
        end = logs[-1, sorted(stop)].logsumexp(dim=-1)
        scores: npt.NDArray[np.float32] = torch.cat([own.flatten(), end[None]]).numpy()
    return scores


class _State:
    """What the model remembers of the live rows: key-value cache, attention mask, positions, next logits."""

    __slots__ = ("cache", "logits", "mask", "positions")

    def __init__(self, *, cache: Any, logits: Tensor, mask: Tensor | None, positions: Tensor) -> None:
        self.cache = cache  # per layer: keys and values (rows, heads, time, head size)
        self.logits = logits  # (rows, vocabulary)
        self.mask = mask  # (rows, time), 0 on padding; None if there is no padding
        self.positions = positions  # (rows,): of the last token

    @classmethod
    def after_prompts(cls, model: Any, prompts: Sequence[tuple[int, ...]], n: int) -> _State:
        """Reads each prompt once, then gives each of its ``n`` candidates a row."""
        import torch

        lengths = torch.tensor([len(ids) for ids in prompts])
        longest = int(lengths.max())
        ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in prompts])  # (prompts, time)
        padding = (longest - lengths)[:, None]
        time = torch.arange(longest)[None, :]
        mask = (time >= padding).long() if bool(padding.any()) else None
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(time - padding).clamp(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        cache.batch_repeat_interleave(n)
        return cls(
            cache=cache,
            logits=out.logits[:, -1].repeat_interleave(n, dim=0),
            mask=None if mask is None else mask.repeat_interleave(n, dim=0),
            positions=(lengths - 1).repeat_interleave(n),
        )

    def advance(self, model: Any, unfinished: Sequence[int], tokens: Sequence[int]) -> None:
        """Drops all rows but the ``unfinished`` ones and reads one more token in each of those."""
        import torch

        if len(unfinished) < len(self.positions):
            index = torch.tensor(unfinished)
            self.cache.batch_select_indices(index)
            self.positions = self.positions[index]
            self.mask = None if self.mask is None else self.mask[index]
        self.positions = self.positions + 1
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(unfinished), 1)], dim=1)
        out = model(
            input_ids=torch.tensor(tokens)[:, None],
            attention_mask=self.mask,
            position_ids=self.positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.cache, self.logits = out.past_key_values, out.logits[:, -1]


def _choose(logits: Tensor, rows: Sequence[_Row], decoding: Decoding) -> list[int]:
    best = logits.topk(min(decoding.top_k, logits.shape[-1]), dim=-1)
    tokens = choose(
        best.values.numpy(),
        best.indices.numpy(),
        keys=np.array([row.key for row in rows], dtype=np.uint64),
        steps=np.array([len(row.tokens) for row in rows], dtype=np.uint64),
        greedy=np.array([row.candidate == 0 for row in rows]),
        decoding=decoding,
    )
    return [int(token) for token in tokens]
