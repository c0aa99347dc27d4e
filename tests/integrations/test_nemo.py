"""The output rails for NeMo Guardrails in real rails of that package, where it is installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from guardrail import Policy, UsageError
from tests.streaming import CLEAN, NEUTRAL, TOXIC, guard

nemoguardrails = pytest.importorskip("nemoguardrails", reason="pip install 'nemoguardrails>=0.24'")
pytestmark = pytest.mark.filterwarnings("default")  # the package itself warns
REFUSAL = "I'm sorry, I can't respond to that."
CONFIG = """models: []
rails: {{output: {{flows: [{flow}], streaming: {{enabled: {stream}, stream_first: false}}}}}}
"""


def rails(flow: str, *, stream: bool = False, policy: Policy | None = None) -> Any:
    from guardrail.integrations.nemo import FLOWS, register

    config = nemoguardrails.RailsConfig.from_content(
        FLOWS, CONFIG.format(flow=flow, stream=str(stream).lower())
    )
    return register(nemoguardrails.LLMRails(config), guard(policy or Policy()))


def answered(made: Any, text: str) -> Any:
    messages = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": text}]
    answer = asyncio.run(made.generate_async(messages=messages, options={"rails": ["output"]}))
    return answer.response[-1]["content"]


@pytest.mark.parametrize("flow", ["guardrail rewrite", "guardrail block"])
def test_clean_text_passes(flow: str) -> None:
    assert answered(rails(flow), CLEAN) == CLEAN


def test_toxic_text_is_rewritten() -> None:
    assert answered(rails("guardrail rewrite"), f"{CLEAN} {TOXIC}") == f"{CLEAN} {NEUTRAL}"


def test_toxic_text_is_blocked_by_the_other_flow_and_by_a_policy_that_raises() -> None:
    assert answered(rails("guardrail block"), TOXIC) == REFUSAL
    raising = Policy(ladder=("block",), block="raise")
    assert answered(rails("guardrail rewrite", policy=raising), TOXIC) == REFUSAL


def test_rewriting_beside_streams_is_refused() -> None:
    with pytest.raises(UsageError, match="no rewrite inside a stream: use the flow 'guardrail block'"):
        rails("guardrail rewrite", stream=True)


def test_a_stream_is_blocked_before_its_text_is_shown() -> None:
    made = rails("guardrail block", stream=True)

    async def say() -> AsyncIterator[str]:
        for word in f"{CLEAN} {TOXIC}".split(" "):
            yield word + " "

    async def run() -> str:
        asked = [{"role": "user", "content": "Say it."}]
        return "".join([piece async for piece in made.stream_async(messages=asked, generator=say())])

    shown = asyncio.run(run())
    assert "idiot" not in shown
    assert "content_blocked" in shown
