"""Guardrails AI under the conformance kit: a guard with one validator of ours, ``on_fail="fix"``."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from guardrails import Guard, settings
from guardrails.classes.rc import RC
from guardrails.validators import FailResult, PassResult, Validator, register_validator

from guardrail.testing import Detect, Harness, Subject


class Peer(Harness):
    """A validator's result is the detector's answer; streams are those of ``guard(..., stream=True)``."""

    max_cuts = 6
    size = 1000

    def judge(self, text: str) -> object:
        if not (places := self.found(text)):
            return PassResult()
        fixed = text
        for start, end in reversed(places):
            fixed = f"{fixed[:start]}[removed]{fixed[end:]}"
        return FailResult(error_message="forbidden", fix_value=fixed)

    def guard(self, detect: Detect) -> Subject:
        settings.rc = RC(enable_metrics=False)

        @register_validator(name="project/forbidden", data_type="string")
        class Forbidden(Validator):
            def _validate(self, value: Any, metadata: dict[str, Any]) -> Any:
                return detect(value)

        guard = Guard().use(Forbidden(on_fail="fix"))
        guard.configure(allow_metrics_collection=False)

        def check(text: str) -> str:
            return str(guard.validate(text).validated_output)

        def stream(chunks: Iterator[str]) -> Iterator[str]:
            def say(*, messages: Any, **_: Any) -> Iterator[Any]:
                for text in chunks:
                    yield delta(text)
                yield delta("", finish_reason="stop")

            for outcome in guard(say, messages=[{"role": "user", "content": "Say it."}], stream=True):
                yield str(outcome.validated_output)

        return Subject(check, stream)


def delta(text: str, *, finish_reason: str | None = None) -> Any:
    """A chunk as OpenAI streams it; a stream of plain strings is not seen to end."""
    choice = SimpleNamespace(delta=SimpleNamespace(content=text), finish_reason=finish_reason)
    return SimpleNamespace(choices=[choice])
