"""OpenAI Guardrails under the conformance kit: its client, with one check of ours on the output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
from guardrails import GuardrailsOpenAI
from guardrails.registry import default_spec_registry
from guardrails.types import GuardrailResult
from pydantic import BaseModel

from guardrail.testing import Detect, Harness, Subject

NAME = "Conformance"
CONFIG = {"version": 1, "output": {"version": 1, "guardrails": [{"name": NAME, "config": {}}]}}


class NoConfig(BaseModel):
    """The check has no settings."""


class Peer(Harness):
    """The check's result is the detector's answer; ``raise_guardrail_errors=True``, which is not its default.

    The model is a transport that answers from memory, in chunks as they come.
    """

    max_cuts = 6
    size = 1000

    def judge(self, text: str) -> object:
        return GuardrailResult(tripwire_triggered=bool(self.found(text)))

    def guard(self, detect: Detect) -> Subject:
        def forbidden(ctx: Any, data: str, config: NoConfig) -> Any:
            return detect(data)

        if default_spec_registry._guardrailspecs.get(NAME):
            default_spec_registry.remove(NAME)
        default_spec_registry.register(name=NAME, check_fn=forbidden, description="", media_type="text/plain")

        def asked(chunks: Iterator[str], *, stream: bool) -> Any:
            transport = httpx.MockTransport(lambda request: answer(chunks, stream=stream))
            client = GuardrailsOpenAI(
                config=CONFIG,
                raise_guardrail_errors=True,
                api_key="none",
                max_retries=0,
                http_client=httpx.Client(transport=transport),
            )
            messages = [{"role": "user", "content": "Say it."}]
            return client.chat.completions.create(model="m", messages=messages, stream=stream)

        def check(text: str) -> str:
            return str(asked(iter([text]), stream=False).choices[0].message.content)

        def stream(chunks: Iterator[str]) -> Iterator[str]:
            for piece in asked(chunks, stream=True):
                yield piece.choices[0].delta.content or ""

        return Subject(check, stream)


def answer(chunks: Iterator[str], *, stream: bool) -> httpx.Response:
    """A chat completion, whole or as server-sent events."""
    head = {"id": "1", "created": 1, "model": "m"}
    if not stream:
        message = {"role": "assistant", "content": "".join(chunks)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return httpx.Response(200, json=head | {"object": "chat.completion", "choices": [choice]})

    def events() -> Iterator[bytes]:
        for text in chunks:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            event = head | {"object": "chat.completion.chunk", "choices": [choice]}
            yield f"data: {json.dumps(event)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=events())
