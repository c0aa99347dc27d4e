"""Responses of a model to prompts: plain samples, each prompt its own noise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from guardrail_training.modeling.families import family_of
from guardrail_training.reinforcement.rollouts import PromptQuery, noise_for, sample, text_of

__all__ = ["Response", "respond"]


@dataclass(frozen=True, slots=True)
class Response:
    """A text, its tokens with the end-of-text token, and whether that token came before the limit."""

    text: str = field(repr=False)
    tokens: int
    ended: bool


def respond(
    model: Any,
    queries: Sequence[PromptQuery],
    *,
    tokenizer: Any,
    tokens: int,
    temperature: float,
    batch_size: int,
    seed: int,
    min_tokens: int = 0,
    keeps_special: bool = False,
    advance: Callable[[int], None],
) -> list[Response]:
    """One response per query, of at most ``tokens`` tokens and at least ``min_tokens``.

    The noise of a response follows from seed and prompt: two models are asked with the same, so that they
    differ by their probabilities alone. ``advance`` is told how many responses each batch gave.
    """
    family = family_of(model, pad_id=tokenizer.pad_token_id)
    order = sorted(range(len(queries)), key=lambda place: len(queries[place].ids))
    found: dict[int, Response] = {}
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        noise = noise_for([_seed(seed, queries[place]) for place in places], tokens=tokens)
        drawn = sample(
            family,
            family.pad([queries[place].ids for place in places]),
            noise=noise,
            limits=torch.full((len(places),), tokens),
            temperature=temperature,
            stop_id=tokenizer.eos_token_id,
            pad_id=tokenizer.pad_token_id,
            min_tokens=min_tokens,
        )
        for row, place in enumerate(places):
            text = text_of(family, drawn, row, tokenizer=tokenizer, keeps_special=keeps_special)
            found[place] = Response(text, tokens=int(drawn.lengths[row]), ended=bool(drawn.ended[row]))
        advance(len(places))
    return [found[place] for place in range(len(queries))]


def _seed(seed: int, query: PromptQuery) -> int:
    digest = hashlib.sha256(f"generation-{seed}-{list(query.ids)}".encode()).digest()
    return int.from_bytes(digest[:7], "big")
