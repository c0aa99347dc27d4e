"""Output rails for NeMo Guardrails: ``register(rails, guard)`` and two flows.

    config = RailsConfig.from_content(FLOWS, "rails: {output: {flows: [guardrail rewrite]}}")
    rails = register(LLMRails(config), guard)

``guardrail rewrite`` puts the guard's text in place of the answer. NeMo Guardrails applies no rewrite inside
a stream: there, use ``guardrail block``, which ends the stream, or ``guard.astream(rails.stream_async(...))``
without an output rail, which rewrites. Needs the package ``nemoguardrails``, 0.24 or newer.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from guardrail.errors import BlockedError, FailureError, UsageError
from guardrail.guard import Guard
from guardrail.outcome import Outcome

if TYPE_CHECKING:
    from nemoguardrails.actions.rail_outcome import RailOutcome

__all__ = ["FLOWS", "register"]

R = TypeVar("R")
REWRITE = "guardrail rewrite"
FLOWS = """
define bot refuse to respond
  "I'm sorry, I can't respond to that."

define subflow guardrail rewrite
  $response = execute guardrail_rewrite(text=$bot_message)

  if $response.is_blocked
    bot refuse to respond
    stop

  if $response.is_transform
    $bot_message = $response.transform_text["bot_message"]

define subflow guardrail block
  $response = execute guardrail_block(text=$bot_message)

  if $response.is_blocked
    bot refuse to respond
    stop
"""
"""The flows in Colang 1.0, to be put next to a configuration's own."""


def register(rails: R, guard: Guard | None = None) -> R:
    """The same rails with the actions of ``FLOWS``.

    Args:
        rails: An LLMRails.
        guard: The guard that moderates; default: ``Guard()``.

    Raises:
        UsageError: If streams are enabled together with ``guardrail rewrite``: they would show what it
            rewrote.
    """
    if find_spec("nemoguardrails") is None:
        raise FailureError("guardrail.integrations.nemo needs: pip install 'nemoguardrails>=0.24'")
    from nemoguardrails.actions.rail_outcome import RailOutcome, TransformTarget

    made: Any = rails
    output = made.config.rails.output
    if REWRITE in output.flows and output.streaming and output.streaming.enabled:
        raise UsageError(
            f"NeMo Guardrails applies no rewrite inside a stream: use the flow 'guardrail block' in place of "
            f"{REWRITE!r}, or turn rails.output.streaming off"
        )
    chosen = Guard() if guard is None else guard

    async def guardrail_rewrite(text: str, **_: Any) -> RailOutcome:
        outcome, blocked = await _outcome(chosen, text)
        if blocked:
            return RailOutcome.block(metadata=_metadata(outcome))
        if not outcome.changed:
            return RailOutcome.allow(metadata=_metadata(outcome))
        target = [(TransformTarget.BOT_MESSAGE, outcome.text)]
        return RailOutcome.transform(target, metadata=_metadata(outcome))

    async def guardrail_block(text: str, **_: Any) -> RailOutcome:
        outcome, blocked = await _outcome(chosen, text)
        if blocked or outcome.changed:
            return RailOutcome.block(metadata=_metadata(outcome))
        return RailOutcome.allow(metadata=_metadata(outcome))

    for action in (guardrail_rewrite, guardrail_block):
        made.register_action(action, action.__name__)
    return rails


async def _outcome(guard: Guard, text: str) -> tuple[Outcome, bool]:
    """The outcome, and whether it raised: then nothing takes the text's place."""
    try:
        return await guard.acheck(text), False
    except BlockedError as error:
        return error.outcome, True


def _metadata(outcome: Outcome) -> dict[str, Any]:
    return outcome.to_dict(include_text=False)
