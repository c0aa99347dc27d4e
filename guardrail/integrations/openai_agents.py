"""OpenAI Agents SDK: a model that says only what the guard released, and an output guardrail that trips.

    agent = Agent("helper", model=GuardedModel(OpenAIResponsesModel("gpt-5", client), guard=guard))
    agent = Agent("helper", output_guardrails=[output_guardrail(guard)])

The model rewrites, streamed or not: text, refusals and reasoning; calls of tools, handoffs and structured
output are judged as a whole and never changed. Where a segment is blocked, the answer ends in a refusal, or
BlockedError is raised under ``Policy(block="raise")``. The guardrail changes nothing: it stops the run once
the whole output is there. Needs the package ``openai-agents``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from guardrail.errors import BlockedError, FailureError
from guardrail.guard import Guard
from guardrail.integrations.completions.turn import Turn
from guardrail.integrations.openai_client import ResponsesApi
from guardrail.integrations.strict_json import JsonObject

try:
    from agents import GuardrailFunctionOutput, Model, ModelResponse, ModelTracing, OutputGuardrail
    from openai import BaseModel
    from openai.types.responses import Response, ResponseStreamEvent
except ModuleNotFoundError:
    raise FailureError("guardrail.integrations.openai_agents needs: pip install openai-agents") from None

__all__ = ["GuardedModel", "output_guardrail"]


class GuardedModel(Model):  # type: ignore[misc]  # the package need not be there
    """A model of the Agents SDK whose answers a guard moderates.

    model   any model: OpenAI's, LiteLLM's, one of your own
    guard   the guard that moderates; default: ``Guard()``

    The model inside traces without data, for its spans hold the answer before it is moderated.
    """

    def __init__(self, model: Model, *, guard: Guard | None = None) -> None:
        self._model = model
        self._guard = Guard() if guard is None else guard

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        """The other model's answer, moderated; of the same id and usage."""
        asked, args, kwargs = _taken_apart(args, kwargs)
        response = await self._model.get_response(*args, **kwargs)
        output = [_content_of(item) for item in response.output]
        whole: JsonObject = {"object": "response", "status": "completed", "output": output}
        shown = (await Turn(self._guard, ResponsesApi(), asked).whole(whole))["output"]
        if shown == output:
            return response
        return replace(response, output=Response.construct(output=shown).output)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """The other model's events, moderated: what they bring is what the whole answer would be."""
        self._guard.stream(())  # a policy that no stream can keep is refused here and now
        asked, args, kwargs = _taken_apart(args, kwargs)
        source = self._model.stream_response(*args, **kwargs)
        turn = Turn(self._guard, ResponsesApi(), asked)
        try:
            async with aclosing(turn.events(source, content_of=_content_of, rebuilt=_event)) as events:
                async for event in events:
                    yield event
                    del event  # an error of the next one shows this frame
        finally:
            if (aclose := getattr(source, "aclose", None)) is not None:
                await aclose()

    async def close(self) -> None:
        """Closes the other model."""
        await self._model.close()

    def __getattr__(self, name: str) -> Any:
        if name == "_model":  # a copy that is being made has none yet
            raise AttributeError(name)
        return getattr(self._model, name)

    def get_retry_advice(self, request: Any) -> Any:
        """As the other model advises."""
        return self._model.get_retry_advice(request)

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._model._cleanup_on_run_end(owner)


def output_guardrail(guard: Guard | None = None, *, name: str = "guardrail") -> OutputGuardrail[Any]:
    """An output guardrail that trips where the guard would change an output, or block it.

    ``output_info`` of the result says what was found, without text.
    """
    chosen = Guard() if guard is None else guard

    async def judged(context: object, agent: object, output: Any) -> GuardrailFunctionOutput:
        try:
            tripped = (await chosen.amoderate(output)) is not output
            told = "changed" if tripped else "clean"
        except BlockedError as error:
            tripped, told = True, error.outcome.summary()
        return GuardrailFunctionOutput(output_info=told, tripwire_triggered=tripped)

    return OutputGuardrail(guardrail_function=judged, name=name)


NAMES = ("system_instructions", "input", "model_settings", "tools", "output_schema", "handoffs", "tracing")
"""Arguments of a model that come by position."""


def _taken_apart(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[JsonObject, tuple[Any, ...], dict[str, Any]]:
    """The request as JSON, and the arguments for the other model, which is not to trace what it says."""
    given = dict(zip(NAMES, args, strict=False)) | kwargs
    if given.get("tracing") is ModelTracing.ENABLED:
        given["tracing"] = ModelTracing.ENABLED_WITHOUT_DATA
    schema = given.get("output_schema")
    asked: JsonObject = {"instructions": given.get("system_instructions")}
    if schema is not None and not schema.is_plain_text():
        asked["text"] = {"format": {"type": "json_schema"}}
    return asked, (), given


def _content_of(value: Any) -> JsonObject:
    content: JsonObject = value if isinstance(value, dict) else value.to_dict(mode="json", warnings=False)
    return content


class _Carrier(BaseModel):
    """Has the client's own union make an event of the right class."""

    event: ResponseStreamEvent


def _event(content: JsonObject) -> Any:
    return _Carrier.construct(event=content).event
