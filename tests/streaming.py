"""Guards on fakes, and ways to read their streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

from guardrail import Guard, Outcome, Policy
from guardrail.engine.stream import AsyncStream, Stream
from guardrail.outcome import Timings
from tests.fakes import BagEmbedder, WordDetector, WordRewriter

CLEAN = "The weather in the valley is fine today."
TOXIC = "The driver of that bus is an idiot."
NEUTRAL = TOXIC.replace("idiot", "person")
INLINE = Policy(detect_timeout=None, rewrite_timeout=None)
SHORT = replace(INLINE, segment_min=4, segment_max=60, max_rewrites=3)


def guard(policy: Policy = INLINE, **parts: Any) -> Guard:
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(policy=policy, **fakes | parts)


def timeless(outcome: Outcome | None) -> Outcome:
    assert outcome is not None
    return replace(outcome, timings=Timings())


def read(stream: Stream) -> tuple[list[str], Outcome]:
    pieces = list(stream)
    return pieces, timeless(stream.outcome)


async def aread(stream: AsyncStream) -> tuple[list[str], Outcome]:
    pieces = [piece async for piece in stream]
    return pieces, timeless(stream.outcome)


async def later(chunks: Iterable[str]) -> AsyncIterator[str]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def cut(text: str, places: Iterable[int]) -> list[str]:
    """The text in pieces; equal places give empty ones."""
    ends = sorted(places)
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
