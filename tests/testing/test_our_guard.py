"""This package's guard keeps the laws of ``guardrail.testing``, on fakes and on the shipped detector."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import pytest

from guardrail import Guard, Policy, Span, Verdict
from guardrail.testing import Detect, GuardLaws, Subject, from_async
from tests.fakes import BagEmbedder, WordRewriter

POLICY = Policy(detect_timeout=2.0)
HANG = 60.0


def guarded(detect: Detect, policy: Policy = POLICY, **parts: Any) -> Guard:
    """A guard that asks one detector as its classifier and as its word list."""

    def batched(texts: Any) -> Any:
        return [detect(text) for text in texts]

    return Guard(policy=policy, detector=batched, lexicon=batched, **parts)


class Fake(GuardLaws):
    patience = HANG

    def judge(self, text: str) -> object:
        spans = tuple(Span(*place) for place in self.found(text))
        return Verdict({"toxicity": 0.9 if spans else 0.0}, bool(spans), spans)


class TestRewriting(Fake):
    def guard(self, detect: Detect) -> Subject:
        guard = guarded(detect, rewriter=WordRewriter(), embedder=BagEmbedder(), verifier=None)
        return Subject(lambda text: guard.check(text).text, guard.stream)


class TestMasking(Fake):
    def guard(self, detect: Detect) -> Subject:
        guard = guarded(detect, rewriter=None)
        return Subject(lambda text: guard.check(text).text, guard.stream)


class TestAsynchronousStreams(Fake):
    def guard(self, detect: Detect) -> Subject:
        guard = guarded(detect, rewriter=None)

        def stream(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
            return guard.astream(chunks)

        return Subject(lambda text: guard.check(text).text, from_async(stream))


class TestBlocking(Fake):
    def guard(self, detect: Detect) -> Subject:
        policy = Policy(detect_timeout=2.0, ladder=("block",), block="raise")
        guard = guarded(detect, policy)
        return Subject(lambda text: guard.check(text).text, guard.stream)


class TestWrappedFunctions(Fake):
    def guard(self, detect: Detect) -> Subject:
        guard = guarded(detect, rewriter=None)

        def echoed(text: str) -> str:
            return text

        def spoken(chunks: Any) -> Any:
            yield from chunks

        return Subject(guard.wrap(echoed), guard.wrap(spoken))


@cache
def shipped() -> Guard:
    return Guard(rewriter=None)


@pytest.mark.slow
class TestShippedDetector(GuardLaws):
    patience = HANG
    max_cuts = 12
    size = 500

    def judge(self, text: str) -> object:
        (verdict,) = shipped().detect([text])
        return verdict

    def guard(self, detect: Detect) -> Subject:
        policy = Policy(detect_timeout=HANG / 12)
        guard = Guard(policy=policy, detector=lambda texts: [detect(text) for text in texts], rewriter=None)
        return Subject(lambda text: guard.check(text).text, guard.stream)
