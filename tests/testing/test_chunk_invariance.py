"""An independent package, ``chunk-invariance``, finds streams equal to the whole, and agrees with our law."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

from guardrail import Guard
from guardrail.testing import LAWS, Detect, Harness, LawBrokenError, Samples, Subject
from tests.streaming import SHORT, guard

chunk_invariance = pytest.importorskip("chunk_invariance", reason="pip install chunk-invariance")
SAMPLES = Samples.around("idiot")
TEXTS = (*SAMPLES.clean, *SAMPLES.flagged)
KEY = "sk-AbCd1234"


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("policy", [{}, {"policy": SHORT}], ids=["sentences", "short-segments"])
def test_streams_are_chunk_invariant_for_every_cut_in_two(text: str, policy: dict[str, Any]) -> None:
    tested = guard(**policy)
    whole = tested.check(text).text
    tried = chunk_invariance.assert_chunk_invariant(tested.stream, lambda given: whole, text)
    assert tried == len(text)


@pytest.mark.parametrize("text", ["An idiot.", "idiot\nok."])
def test_streams_are_chunk_invariant_for_every_cut_of_a_short_text(text: str) -> None:
    tested = guard(policy=SHORT)
    whole = tested.check(text).text
    tried = chunk_invariance.assert_chunk_invariant(tested.stream, lambda given: whole, text, splits="all")
    assert tried == 2 ** (len(text) - 1)
    assert "idiot" not in whole


def test_asynchronous_streams_are_chunk_invariant() -> None:
    tested = guard()

    def stream(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
        return tested.astream(chunks)

    async def run() -> int:
        whole = tested.check(SAMPLES.flagged[2]).text
        tried: int = await chunk_invariance.assert_chunk_invariant_async(
            stream, lambda given: whole, SAMPLES.flagged[2]
        )
        return tried

    assert asyncio.run(run()) == len(SAMPLES.flagged[2])


@pytest.mark.slow
def test_streams_on_the_shipped_detector_are_chunk_invariant() -> None:
    shipped = Guard(rewriter=None)
    for text in SAMPLES.flagged[:2]:
        whole = shipped.check(text).text
        chunk_invariance.assert_chunk_invariant(shipped.stream, lambda given, whole=whole: whole, text)
        assert "idiot" not in whole


class Redactor(Harness):
    """One of the package's own example filters."""

    pluggable = False
    samples = Samples.around(KEY)

    def __init__(self, stream: Callable[[Iterable[str]], Iterator[str]]) -> None:
        self.stream = stream

    def guard(self, detect: Detect) -> Subject:
        from chunk_invariance.examples import redact

        return Subject(redact, self.stream)

    def judge(self, text: str) -> object:
        return bool(self.found(text))


@pytest.mark.parametrize(
    ("name", "is_right"), [("hold_back", True), ("design_a", False), ("design_b", False)]
)
def test_both_say_the_same_of_a_right_and_of_two_wrong_filters(name: str, is_right: bool) -> None:
    from chunk_invariance import examples

    stream = getattr(examples, name)
    text = SAMPLES.flagged[0].replace("idiot", KEY)
    if is_right:
        chunk_invariance.assert_chunk_invariant(stream, examples.redact, text)
        LAWS["streams_equal_the_whole"](Redactor(stream))
        return
    with pytest.raises(chunk_invariance.ChunkInvarianceError) as theirs:
        chunk_invariance.assert_chunk_invariant(stream, examples.redact, text)
    with pytest.raises(LawBrokenError) as ours:
        LAWS["streams_equal_the_whole"](Redactor(stream))
    assert ours.value.evidence["text"] == text
    assert ours.value.evidence["cut"] == theirs.value.chunks
