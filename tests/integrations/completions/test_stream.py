"""Streamed completions are moderated without a server: JSON chunks in, JSON chunks out."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from guardrail.integrations.completions.completion import CHAT, TEXT, AnswerShape
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.stream import AnsweredError, CompletionStream
from guardrail.integrations.strict_json import MalformedError
from guardrail.outcome import Outcome
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    TOXIC,
    delta,
    fake_guard,
    text_delta,
    usage_chunk,
)


class Run:
    """One stream that was read to its end; ``error`` is what it raised."""

    def __init__(self, chunks: Iterable[Any], shape: AnswerShape) -> None:
        self.written: list[dict[str, Any]] = []
        self.outcomes: list[Outcome] = []
        self.error: Exception | None = None
        self.is_over = False
        asyncio.run(self._run(chunks, shape))

    async def _run(self, chunks: Iterable[Any], shape: AnswerShape) -> None:
        async def source() -> AsyncIterator[Any]:
            for chunk in chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk

        async def write(chunk: dict[str, Any]) -> None:
            self.written.append(chunk)

        moderator = Moderator(fake_guard(), on_outcome=lambda outcome, policy: self.outcomes.append(outcome))
        stream = CompletionStream(shape=shape, moderator=moderator, write=write)
        try:
            await stream.run(source())
        except Exception as error:  # noqa: BLE001  # whatever it is, a test looks at it
            self.error = error
        self.is_over = stream.is_over

    def text(self, index: int = 0, name: str = "content") -> str:
        """The text of one choice."""
        choices = [choice for chunk in self.written for choice in chunk["choices"]]
        parts = [
            choice.get("delta", choice).get(name) or "" for choice in choices if choice["index"] == index
        ]
        return "".join(parts)

    def reasons(self) -> list[str]:
        """Why choices ended, in order."""
        return [c["finish_reason"] for chunk in self.written for c in chunk["choices"] if c["finish_reason"]]


def chat(*chunks: Any) -> Run:
    return Run(chunks, AnswerShape(CHAT, model="small-1"))


def test_text_is_moderated_and_the_usage_report_stays() -> None:
    run = chat(delta(f"{CLEAN} {TOXIC[:20]}"), delta(TOXIC[20:]), delta(reason="stop"), usage_chunk())
    assert (run.error, run.is_over) == (None, True)
    assert run.text() == f"{CLEAN} {MENDED}"
    assert run.reasons() == ["stop"]
    assert run.written[-1]["usage"]["total_tokens"] == 12
    assert [str(outcome.action) for outcome in run.outcomes if outcome.edits] == ["rewritten"]


def test_choices_and_text_completions_are_kept_apart() -> None:
    chunks = [text_delta(TOXIC, index=1), text_delta(CLEAN), text_delta("", reason="length")]
    run = Run([*chunks, text_delta("", index=1, reason="stop")], AnswerShape(TEXT))
    assert (run.text(0, "text"), run.text(1, "text")) == (CLEAN, MENDED)
    assert sorted(run.reasons()) == ["length", "stop"]


def test_the_argument_of_a_tool_that_is_toxic_ends_its_choice() -> None:
    fragments = [{"index": 0, "id": "call-1", "function": {"name": "say", "arguments": '{"text": "You id'}}]
    rest = [{"index": 0, "function": {"arguments": 'iot."}'}}]
    run = chat(delta(CLEAN), delta(tool_calls=fragments), delta(tool_calls=rest, reason="tool_calls"))
    assert run.reasons() == ["content_filter"]
    assert run.text() == CLEAN
    assert "id" not in str([chunk["choices"][0]["delta"].get("tool_calls") for chunk in run.written])


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (ConnectionError("gone"), ConnectionError),
        ({"error": "full"}, AnsweredError),
        ("text", MalformedError),
    ],
)
def test_what_ends_a_stream_early_is_raised_behind_its_clean_text(last: Any, error: type[Exception]) -> None:
    run = chat(delta(f"{CLEAN} "), delta(TOXIC), last)
    assert isinstance(run.error, error)
    assert run.text() == f"{CLEAN} {MENDED}"
    assert run.reasons() == []


def test_no_server_and_no_client_is_loaded() -> None:
    script = (
        "import sys, guardrail.integrations.completions.stream; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"fastapi", "starlette", "uvicorn", "httpx", "openai"} & set(done.stdout.split())
