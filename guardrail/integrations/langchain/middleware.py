"""DetoxMiddleware: an agent whose model says only what a guard released."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse, hook_config
from langchain_core.messages import AIMessage
from langgraph.runtime import Runtime

from guardrail.guard import Guard
from guardrail.integrations.langchain.model import GuardedChatModel, is_signed
from guardrail.structured.paths import parse_paths

__all__ = ["DetoxMiddleware"]

MAX_ANSWERS = 3
"""Answers in words alone after which an agent ends that asks its model on and on for a call of a tool."""


class DetoxMiddleware(AgentMiddleware[Any, Any, Any]):
    """Moderates what the model of an agent says, before tools, state, streams or callbacks get it.

    The model itself is wrapped, so every stream mode carries moderated tokens. A flagged call of a tool is
    dropped, and the agent ends with the refusal. An agent with a ``response_format`` raises BlockedError
    instead: a refusal has no such form, and the agent would ask the model again and again. Where the model
    answers in words alone, although it must call a tool, the agent ends after three such answers, without a
    ``structured_response``. A message that another middleware put in the place of the model's is moderated
    after the model. Give it last, so that it wraps the model that the others chose.

    Args:
        guard: Who moderates; the default guard if omitted.
        paths: Where in a message prose is besides its content, such as ``tool_calls[].args.text``.
    """

    def __init__(self, guard: Guard | None = None, *, paths: Sequence[str] = ()) -> None:
        super().__init__()
        parse_paths(paths)
        self._guard = guard or Guard()
        self._raising = self._guard.with_policy(replace(self._guard.policy, block="raise"))
        self._paths = tuple(paths)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Has the call made by the moderated model."""
        return handler(self._guarded(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """The same without blocking the event loop."""
        return await handler(self._guarded(request))

    @hook_config(can_jump_to=["end"])
    def after_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """Moderates the latest message where it is not as a guard released it."""
        message = _unsigned(state)
        if message is None:
            return _ended(state) or None
        return _ended(state) | _update(message, self._guard.moderate(message, paths=self._paths)) or None

    @hook_config(can_jump_to=["end"])
    async def aafter_model(self, state: AgentState[Any], runtime: Runtime[Any]) -> dict[str, Any] | None:
        """The same without blocking the event loop."""
        message = _unsigned(state)
        if message is None:
            return _ended(state) or None
        return (
            _ended(state) | _update(message, await self._guard.amoderate(message, paths=self._paths)) or None
        )

    def _guarded(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        model = request.model
        has_form = request.response_format is not None
        if isinstance(model, GuardedChatModel) and model.guarded_by(self._guard):
            return request.override(model=model.raising()) if has_form else request
        guard = self._raising if has_form else self._guard
        return request.override(model=GuardedChatModel(model, guard=guard, paths=self._paths))


def _unsigned(state: AgentState[Any]) -> AIMessage | None:
    """The message that the model gave, unless it is signed."""
    given = (message for message in reversed(state["messages"]) if isinstance(message, AIMessage))
    message = next(given, None)
    return None if message is None or is_signed(message) else message


def _ended(state: AgentState[Any]) -> dict[str, Any]:
    """Ends an agent that keeps asking a model which has answered in words several times in a row."""
    latest = state["messages"][-MAX_ANSWERS:]
    answers = [message for message in latest if isinstance(message, AIMessage) and not message.tool_calls]
    return {"jump_to": "end"} if len(answers) == MAX_ANSWERS else {}


def _update(before: AIMessage, after: AIMessage) -> dict[str, Any]:
    if after is before:
        return {}
    # Under its own identity, so that it takes the place of the other one in the state.
    update: dict[str, Any] = {"messages": [after.model_copy(update={"id": before.id})]}
    if before.tool_calls and not after.tool_calls:
        update["jump_to"] = "end"  # an agent that waits for a structured answer would ask again
    return update
