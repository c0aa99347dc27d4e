"""The texts that a run asks about: read and encoded before the first step, drawn by step and seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from guardrail.manifest import Template
from guardrail_training.data import read_texts
from guardrail_training.records import TrainingRowError

__all__ = ["Query", "drawn", "load_queries"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Query:
    """A text, the prompt made of it, the prompt's token ids, and its row from 1, 0 without a file."""

    text: str = field(repr=False)
    prompt: str = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)
    row: int = 0


def load_queries(
    path: Path,
    *,
    field: str,
    template: Template,
    tokenizer: Any,
    least_characters: int,
    most_characters: int,
    max_tokens: int,
) -> tuple[Query, ...]:
    """Every text of a JSON Lines file whose length is within the bounds.

    Raises TrainingRowError for an empty text, for a prompt of more than ``max_tokens`` ids, which is never
    cut silently, and where no text is left.
    """
    queries = []
    for text in read_texts(path, field=field):
        if not least_characters <= len(text.content) <= most_characters:
            continue
        ids = tuple(template.encode(tokenizer, text.content))
        if len(ids) > max_tokens:
            raise TrainingRowError(
                f"{path} row {text.number}: its prompt has {len(ids)} tokens, more than max_prompt_tokens = "
                f"{max_tokens}; raise it, or lower most_characters to leave such rows out"
            )
        prompt = template.literal.replace("{text}", text.content)
        queries.append(Query(text=text.content, prompt=prompt, ids=ids, row=text.number))
    if not queries:
        raise TrainingRowError(
            f"{path}: no text has between {least_characters} and {most_characters} characters"
        )
    return tuple(queries)


def drawn(queries: Sequence[T], *, step: int, count: int, seed: int) -> list[T]:
    """The queries, or other texts, of a step, from 1: one random order after the other, each of all."""
    chosen = []
    for position in range((step - 1) * count, step * count):
        order = _order(len(queries), seed=seed, turn=position // len(queries))
        chosen.append(queries[order[position % len(queries)]])
    return chosen


def _order(count: int, *, seed: int, turn: int) -> list[int]:
    order = list(range(count))
    random.Random(f"queries-{seed}-{turn}").shuffle(order)
    return order
