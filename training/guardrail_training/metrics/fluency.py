"""How expected a text is to a language model: token log-likelihoods and the perplexity made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

__all__ = ["Surprise", "perplexity", "surprise"]

BATCH = 16  # the logits of 16 x 40 tokens are 126 MB
TOKENS = 512  # a longer text is measured on its first 512 tokens


@dataclass(frozen=True, slots=True)
class Surprise:
    """Per text: summed negative log-likelihood in nats and the number of tokens it is summed over."""

    nats: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.int64]


def surprise(model: Any, tokenizer: Any, texts: Sequence[str]) -> Surprise:
    """Likelihood of each text on its own, begun by the tokenizer's start token; every distinct text is read
    once.

    The end of the text is not scored: whether a sentence stops there is not a matter of its fluency.
    """
    distinct = sorted(set(texts), key=len)
    known: dict[str, tuple[float, int]] = {}
    for start in range(0, len(distinct), BATCH):
        batch = distinct[start : start + BATCH]
        known |= zip(batch, _read(model, tokenizer, batch), strict=True)
    return Surprise(
        nats=np.array([known[text][0] for text in texts], dtype=np.float64),
        tokens=np.array([known[text][1] for text in texts], dtype=np.int64),
    )


def perplexity(measured: Surprise) -> float:
    """exp of the mean negative log-likelihood per token over all texts; infinite over no tokens."""
    total = int(measured.tokens.sum())
    return float(np.exp(measured.nats.sum() / total)) if total else float("inf")


@torch.no_grad()
def _read(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[tuple[float, int]]:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    encoded = [
        [start, *tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)[:TOKENS]]
        for text in texts
    ]
    longest = max(len(ids) for ids in encoded)
    # Padding is on the right, so causal attention keeps it from every real position.
    ids = torch.tensor([[*row, *[start] * (longest - len(row))] for row in encoded])  # (batch, time)
    counts = torch.tensor([len(row) - 1 for row in encoded])
    if longest == 1:
        return [(0.0, 0)] * len(encoded)
    ids = ids.to(model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()  # (batch, time - 1, vocabulary)
    losses = functional.cross_entropy(
        logits.transpose(1, 2), ids[:, 1:], reduction="none"
    ).cpu()  # (batch, time - 1)
    scored = torch.arange(longest - 1)[None, :] < counts[:, None]
    sums = (losses.view_as(scored) * scored).sum(dim=1)
    return [(float(total), int(count)) for total, count in zip(sums, counts, strict=True)]
