"""Streams on the shipped models equal unstreamed checks."""

from __future__ import annotations

import asyncio
import random

import pytest

from guardrail import Action, Guard, Outcome
from tests.streaming import INLINE, aread, cut, later, read
from tests.test_shipped import HARMLESS
from tests.test_shipped import TOXIC as RUDE


@pytest.fixture(scope="module")
def masking() -> Guard:
    """The shipped detector without the rewriter, for what does not need it."""
    return Guard(policy=INLINE, rewriter=None)


def random_chunks(text: str, drawn: random.Random) -> list[str]:
    """About token-sized pieces."""
    return cut(text, drawn.sample(range(len(text) + 1), k=len(text) // drawn.randint(3, 9)))


def alike(streamed: Outcome, expected: Outcome) -> bool:
    """Equal but for the last digits of scores, which depend on the size of a model call."""
    exact = [
        (outcome.text, outcome.action, outcome.degraded, [(e.start, e.end, e.after) for e in outcome.edits])
        for outcome in (streamed, expected)
    ]
    return exact[0] == exact[1] and streamed.verdict.scores == pytest.approx(
        expected.verdict.scores, abs=1e-4
    )


@pytest.mark.slow
def test_500_texts_streamed_equal_the_unstreamed_ones_on_the_shipped_detector(masking: Guard) -> None:
    drawn = random.Random(11)
    texts = [" ".join(drawn.choices(HARMLESS + RUDE, k=drawn.randint(1, 4))) for _ in range(500)]
    for text, expected in zip(texts, masking.check_many(texts), strict=True):
        pieces, outcome = read(masking.stream(random_chunks(text, drawn)))
        assert "".join(pieces) == outcome.text
        assert alike(outcome, expected)


@pytest.mark.slow
def test_concurrent_streams_on_the_shipped_detector_equal_the_unstreamed_texts(masking: Guard) -> None:
    drawn = random.Random(12)
    texts = [" ".join(drawn.choices(HARMLESS + RUDE, k=drawn.randint(1, 4))) for _ in range(100)]

    async def run() -> list[tuple[list[str], Outcome]]:
        streams = [masking.astream(later(random_chunks(text, drawn))) for text in texts]
        return await asyncio.gather(*map(aread, streams))

    for (pieces, outcome), text in zip(asyncio.run(run()), texts, strict=True):
        assert "".join(pieces) == outcome.text
        assert alike(outcome, masking.check(text))


@pytest.mark.base
@pytest.mark.slow
def test_streams_are_rewritten_as_unstreamed_texts_are() -> None:
    shipped = Guard(policy=INLINE)
    drawn = random.Random(13)
    texts = [f"{drawn.choice(HARMLESS)} {rude} {drawn.choice(HARMLESS)}" for rude in RUDE]

    async def run() -> list[tuple[list[str], Outcome]]:
        return await asyncio.gather(
            *(aread(shipped.astream(later(random_chunks(text, drawn)))) for text in texts)
        )

    concurrent = asyncio.run(run())
    expected = shipped.check_many(texts)
    assert any(outcome.action is Action.REWRITTEN for outcome in expected)
    for text, whole, (_, asynchronous) in zip(texts, expected, concurrent, strict=True):
        pieces, outcome = read(shipped.stream(random_chunks(text, drawn)))
        assert "".join(pieces) == outcome.text
        assert alike(outcome, whole)
        assert alike(asynchronous, whole)
