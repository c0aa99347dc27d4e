"""The validator for Guardrails AI in a real guard of that package, where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.streaming import CLEAN, NEUTRAL, TOXIC, guard

guardrails = pytest.importorskip("guardrails.validators", reason="pip install guardrails-ai")
pytestmark = pytest.mark.filterwarnings("default")  # the package itself warns


def validating(**settings: Any) -> Any:
    from guardrails import Guard

    from guardrail.integrations.guardrails_ai import detox

    validated = Guard().use(detox(guard=guard(), **settings))
    validated.configure(allow_metrics_collection=False)
    return validated


def test_clean_text_passes() -> None:
    outcome = validating().validate(CLEAN)
    assert outcome.validation_passed
    assert outcome.validated_output == CLEAN


def test_toxic_text_is_fixed() -> None:
    assert validating().validate(f"{CLEAN} {TOXIC}").validated_output == f"{CLEAN} {NEUTRAL}"


def test_an_exception_says_what_was_found_without_text() -> None:
    from guardrails.errors import ValidationError

    with pytest.raises(ValidationError) as caught:
        validating(on_fail="exception").validate(TOXIC)
    assert "idiot" not in str(caught.value)
    assert "rewritten" in str(caught.value)


@pytest.mark.parametrize("size", [1, 7])
def test_a_stream_is_fixed_and_keeps_its_white_space(size: int) -> None:
    text = f"{CLEAN}\n\n{TOXIC}  {CLEAN}"

    def say(*, messages: Any, **_: Any) -> Iterator[Any]:
        for chunk in [*(text[i : i + size] for i in range(0, len(text), size)), ""]:
            choice = SimpleNamespace(
                delta=SimpleNamespace(content=chunk), finish_reason=None if chunk else "stop"
            )
            yield SimpleNamespace(choices=[choice])

    pieces = validating()(say, messages=[{"role": "user", "content": "Say it."}], stream=True)
    assert "".join(piece.validated_output for piece in pieces) == text.replace("idiot", "person")
