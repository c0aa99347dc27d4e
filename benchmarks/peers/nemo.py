"""NeMo Guardrails under the conformance kit: an output rail with one action of ours, no model."""

from __future__ import annotations

from collections.abc import AsyncIterator

from nemoguardrails import LLMRails, RailsConfig
from nemoguardrails.actions.rail_outcome import RailOutcome

from guardrail.testing import Detect, Harness, Subject, from_async

REFUSAL = "I'm sorry, I can't respond to that."
COLANG = """
define bot refuse to respond
  "I'm sorry, I can't respond to that."

define subflow check forbidden
  $response = execute check_forbidden(text=$bot_message)

  if $response.is_blocked
    bot refuse to respond
    stop
"""
CONFIG = """
models: []
rails:
  output:
    flows:
      - check forbidden
    streaming:
      enabled: true
      chunk_size: {chunk}
      context_size: {context}
      stream_first: false
"""


class Peer(Harness):
    """A ``RailOutcome`` is the detector's answer. Streams hold chunks until they are checked
    (``stream_first: false``), with the default sizes of chunks and context."""

    max_cuts = 6
    size = 500

    def judge(self, text: str) -> object:
        return RailOutcome.block() if self.found(text) else RailOutcome.allow()

    def guard(self, detect: Detect) -> Subject:
        config = RailsConfig.from_content(COLANG, CONFIG.format(chunk=200, context=50))

        rails = LLMRails(config)

        async def check_forbidden(text: str, **_: object) -> object:
            return detect(text)

        rails.register_action(check_forbidden, "check_forbidden")

        def check(text: str) -> str:
            messages = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": text}]
            answer = rails.generate(messages=messages, options={"rails": ["output"]})
            return answered(answer.response[-1]["content"])

        async def stream(chunks: AsyncIterator[str]) -> AsyncIterator[str]:
            messages = [{"role": "user", "content": "Say it."}]
            async for piece in rails.stream_async(messages=messages, generator=chunks):
                yield answered(piece)

        return Subject(check, from_async(stream))


def answered(text: str) -> str:
    """The text; a refusal, or the error object that ends a stream, is a block."""
    if text == REFUSAL or text.startswith('{"error"'):
        raise ValueError("blocked")
    return text
