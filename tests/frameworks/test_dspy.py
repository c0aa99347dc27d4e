"""DSPy: real programs on its dummy model, and streams of a chat server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

dspy = pytest.importorskip("dspy", reason="pip install dspy")

from dspy.streaming import StreamListener, StreamResponse
from dspy.utils.dummies import DummyLM

from guardrail import BlockedError, Policy, UsageError
from guardrail.integrations.dspy import GuardedModule, streamify
from tests.integrations.server.running import Upstream, completion, delta, events
from tests.streaming import CLEAN, NEUTRAL, TOXIC, guard

TEXT = f"{CLEAN} {TOXIC}"


def program(signature: str = "question -> answer", policy: Policy | None = None) -> GuardedModule:
    return GuardedModule(dspy.Predict(signature), guard=guard(policy or Policy()))


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("given", "shown"), [(TEXT, f"{CLEAN} {NEUTRAL}"), (CLEAN, CLEAN)])
def test_a_prediction_is_moderated(is_async: bool, given: str, shown: str) -> None:
    made = program()
    with dspy.context(lm=DummyLM([{"answer": given}])):
        prediction = asyncio.run(made.acall(question="Hello")) if is_async else made(question="Hello")
    assert prediction.answer == shown


def test_reasoning_and_lists_are_rewritten_and_numbers_stay() -> None:
    made = GuardedModule(dspy.ChainOfThought("question -> points: list[str], score: float"), guard=guard())
    answer = {"reasoning": TOXIC, "points": f'["{CLEAN}", "{TOXIC}"]', "score": "0.5"}
    with dspy.context(lm=DummyLM([answer])):
        prediction = made(question="Hello")
    assert (prediction.reasoning, prediction.points, prediction.score) == (NEUTRAL, [CLEAN, NEUTRAL], 0.5)


def test_other_candidates_are_dropped() -> None:
    made = GuardedModule(dspy.Predict("question -> answer", n=2), guard=guard())
    with dspy.context(lm=DummyLM([{"answer": CLEAN}, {"answer": TOXIC}])):
        assert "idiot" not in repr(made(question="Hello").completions)


def test_a_policy_that_raises_does() -> None:
    raising = Policy(ladder=("block",), block="raise")
    with dspy.context(lm=DummyLM([{"answer": TOXIC}])), pytest.raises(BlockedError):
        program(policy=raising)(question="Hello")


def model(upstream: Upstream, text: str) -> Any:
    said = f"[[ ## answer ## ]]\n{text}\n\n[[ ## completed ## ]]"
    words = [delta(f"{word} ") for word in said.split(" ")]
    upstream.reply = lambda asked: (
        events([*words, delta(reason="stop"), "[DONE]"]) if asked.body.get("stream") else completion([said])
    )
    return dspy.LM("openai/small", api_base=f"{upstream.url}/v1", api_key="k", cache=False)


def streamed(made: Any, lm: Any) -> list[Any]:
    async def run() -> list[Any]:
        with dspy.context(lm=lm):
            return [value async for value in made(question="Hello")]

    return asyncio.run(run())


def test_a_stream_is_rewritten_and_ends_in_the_moderated_prediction(upstream: Upstream) -> None:
    made = streamify(program(), stream_listeners=[StreamListener(signature_field_name="answer")])
    values = streamed(made, model(upstream, TEXT))
    pieces = [value.chunk for value in values if isinstance(value, StreamResponse)]
    assert "".join(pieces).strip() == values[-1].answer.strip() == f"{CLEAN} {NEUTRAL}"
    assert len(pieces) > 1


def test_a_blocked_stream_ends_in_the_refusal(upstream: Upstream) -> None:
    blocking = program(policy=Policy(ladder=("block",)))
    made = streamify(blocking, stream_listeners=[StreamListener(signature_field_name="answer")])
    values = streamed(made, model(upstream, f"{TEXT} {CLEAN}"))
    said = "".join(value.chunk for value in values if isinstance(value, StreamResponse))
    assert said.split() == values[-1].answer.split() == f"{CLEAN} {Policy().refusal}".split()


def test_dspys_own_streamify_shows_nothing_but_the_moderated_prediction(upstream: Upstream) -> None:
    values = streamed(dspy.streamify(program()), model(upstream, TEXT))
    assert "idiot" not in repr(values)
    assert values[-1].answer.strip() == f"{CLEAN} {NEUTRAL}"


def test_a_stream_that_would_pass_unread_is_refused() -> None:
    with pytest.raises(UsageError, match="stream_listeners"):
        streamify(program(), stream_listeners=[])
    with pytest.raises(UsageError, match="GuardedModule"):
        streamify(
            dspy.Predict("question -> answer"),
            stream_listeners=[StreamListener(signature_field_name="answer")],
        )
