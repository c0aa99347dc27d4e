"""Law 9 in streams: a canary string shows up nowhere but in the text."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from guardrail import Verdict
from guardrail.errors import ManifestError, UsageError
from tests.fakes import WordDetector
from tests.streaming import INLINE, aread, guard
from tests.test_privacy import CANARY, shown
from tests.waiting import PATIENCE, until


def altered(texts: Sequence[str]) -> list[Verdict]:
    raise ManifestError("model.onnx was altered")


class Quiet(Iterator[Any]):
    """A source whose own frames hold no text: one sentence, and then what fails."""

    def __init__(self, then: object) -> None:
        self._left = iter([f"The weather in {CANARY} is fine. Nobody in {CANARY} knows why", then])

    def __next__(self) -> Any:
        following = next(self._left)
        if isinstance(following, Exception):
            raise following
        return following


@pytest.mark.parametrize(
    ("parts", "then"),
    [
        ({"detector": altered}, ""),
        ({}, CANARY.encode()),
        ({}, KeyError("its own")),
        ({}, TypeError("its own")),
    ],
)
def test_what_goes_wrong_in_a_stream_is_raised_without_showing_its_text(
    parts: dict[str, Any], then: object
) -> None:
    with pytest.raises((ManifestError, KeyError, TypeError)) as caught:
        list(guard(**parts).stream(Quiet(then)))
    assert CANARY not in shown(caught.value)
    with pytest.raises((ManifestError, KeyError, TypeError)) as caught:
        asyncio.run(aread(guard(**parts).astream(Quiet(then))))
    assert CANARY not in shown(caught.value)


@pytest.mark.parametrize("method", ["stream", "astream"])
def test_refusals_of_a_stream_do_not_show_its_text(method: str) -> None:
    for refusing in (guard(), guard(replace(INLINE, block="whole"))):
        with pytest.raises((TypeError, UsageError)) as caught:
            getattr(refusing, method)(CANARY)
        assert CANARY not in shown(caught.value)


def test_a_cancelled_stream_does_not_show_its_text() -> None:
    async def run() -> None:
        entered, leave = threading.Event(), threading.Event()

        def detect(texts: Sequence[str]) -> list[Verdict]:
            entered.set()
            leave.wait(PATIENCE)
            return WordDetector().detect(texts)

        stream = guard(detector=detect).astream([f"The weather in {CANARY} is fine. "])
        task = asyncio.ensure_future(anext(stream))
        await until(entered.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        leave.set()
        assert CANARY not in shown(caught.value)

    asyncio.run(run())


def test_logs_of_streams_hold_no_text(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        list(guard().stream([f"The driver of that {CANARY} bus is an idiot."]))
    assert "action=rewritten" in caplog.text
    assert CANARY not in caplog.text
