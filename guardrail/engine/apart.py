"""Asks a model about texts of any length and number, in small calls, each under its own deadline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from guardrail.engine.calls import Calls
from guardrail.engine.contract import joined
from guardrail.engine.portions import Piece, merged, pieces, portions
from guardrail.engine.steps import Detect, Embed, ModelCall
from guardrail.outcome import Verdict
from guardrail.protocols import Embeddings

__all__ = ["detect_apart", "embed_apart"]


def detect_apart(calls: Calls, texts: Sequence[str], *, batch: int) -> list[Verdict]:
    """One verdict per text, as the detector decides."""
    return [merged(parts) for parts in _answers(calls, texts, Detect, batch=batch)]


def embed_apart(calls: Calls, texts: Sequence[str], *, batch: int) -> Embeddings:
    """One row per text; that of a long text is the mean of its pieces by their lengths, at unit length."""
    if not texts:
        return np.asarray(calls.answer(Embed(())))
    rows = [_mean(parts) for parts in _answers(calls, texts, Embed, batch=batch)]
    return joined([row[None] for row in rows], by=calls.models.embed)


def _answers(
    calls: Calls, texts: Sequence[str], kind: Callable[[tuple[str, ...]], ModelCall], *, batch: int
) -> Iterator[list[tuple[Piece, Any]]]:
    """For each text its pieces, each with the answer."""
    cut = [pieces(text) for text in texts]
    flat = [piece for of_text in cut for piece in of_text]
    asked = [kind(tuple(portion)) for portion in portions((piece.text for piece in flat), batch=batch)]
    answers = itertools.chain.from_iterable(_answer(calls, call) for call in asked)
    for of_text in cut:
        yield [(piece, next(answers)) for piece in of_text]


def _answer(calls: Calls, call: ModelCall) -> Any:
    calls.wait_until_ready(call)
    return calls.answer(call)


def _mean(parts: Sequence[tuple[Piece, Any]]) -> Any:
    if len(parts) == 1:
        return parts[0][1]
    lengths = np.array([len(piece.text) for piece, _ in parts], dtype=np.float32)
    mean = lengths @ np.stack([row for _, row in parts])
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)
