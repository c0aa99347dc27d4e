"""Guard protocols of gateways: LiteLLM's generic guardrail API, the webhooks of agentgateway and Portkey.

The schemas are those that the gateways publish; docs/gateways.md names them and says how each is configured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.tool_calls import ToolCalls
from guardrail.integrations.openai_server.guard_api import answered
from guardrail.integrations.openai_server.proxy import Proxy
from guardrail.integrations.openai_server.request import read_json
from guardrail.integrations.strict_json import JsonObject, MalformedError
from guardrail.integrations.web.errors import ApiError
from guardrail.outcome import Action

__all__ = ["GATEWAY_PATHS", "gateway_routes"]

LITELLM, PORTKEY = "/beta/litellm_basic_guardrail_api", "/v1/portkey"
PROMPTS, ANSWERS = "/request", "/response"
GATEWAY_PATHS = (LITELLM, PORTKEY, PROMPTS, ANSWERS)
OPERATORS_ROLES = ("system", "developer")
"""Whose messages are neither generated text nor a user's: they stay as they are."""
REJECTED = 403


@dataclass(frozen=True, slots=True)
class ModeratedValue:
    """A value with its texts moderated; ``action`` is the strongest that was taken."""

    value: Any = field(repr=False)
    action: Action = Action.PASSED

    @property
    def reason(self) -> str:
        """What was done, without text."""
        return f"guardrail: {self.action}"


def gateway_routes(proxy: Proxy) -> APIRouter:
    """One path for each question of a gateway."""
    router = APIRouter()

    def serve(path: str, work: Any) -> None:
        async def answer(request: Request) -> Response:
            content = read_json(await request.body())
            return await answered(
                proxy, request, partial(work, proxy.moderator_of(request, content), content)
            )

        router.add_api_route(path, answer, methods=["POST"])

    serve(LITELLM, _litellm)
    serve(PROMPTS, _prompts)
    serve(ANSWERS, _answers)
    serve(PORTKEY, _portkey)
    return router


async def _litellm(moderator: Moderator, content: JsonObject) -> JsonObject:
    texts = content.get("texts") or []
    if not _is_list_of(texts, str):
        raise _misfit("texts", "a list of strings")
    judged = await _all(moderator, texts)
    calls = content.get("tool_calls") or []
    if judged.action is Action.BLOCKED or not await _calls_are_clean(moderator, calls):
        return {"action": "BLOCKED", "blocked_reason": moderator.refusal}
    if judged.action is Action.PASSED:
        return {"action": "NONE"}
    return {"action": "GUARDRAIL_INTERVENED", "texts": judged.value}


async def _prompts(moderator: Moderator, content: JsonObject) -> JsonObject:
    messages = _listed(_object(content, "body"), "messages", where="body.messages")
    judged = await _messages(moderator, messages)
    if judged.action is Action.BLOCKED:
        action = {"body": moderator.refusal, "status_code": REJECTED, "reason": judged.reason}
    elif judged.action is Action.PASSED:
        action = {"reason": judged.reason}
    else:
        action = {"body": {"messages": judged.value}, "reason": judged.reason}
    return {"action": action}


async def _answers(moderator: Moderator, content: JsonObject) -> JsonObject:
    choices = _listed(_object(content, "body"), "choices", where="body.choices")
    judged = await _choices(moderator, choices)  # of a blocked one the refusal is shown: a gateway wants text
    body = {} if judged.action is Action.PASSED else {"body": {"choices": judged.value}}
    return {"action": {**body, "reason": judged.reason}}


async def _portkey(moderator: Moderator, content: JsonObject) -> JsonObject:
    event = content.get("eventType")
    if event not in ("beforeRequestHook", "afterRequestHook"):
        raise _misfit("eventType", "beforeRequestHook or afterRequestHook")
    side = "request" if event == "beforeRequestHook" else "response"
    found = _object(content, side).get("json") or {}
    if not isinstance(found, dict):
        raise _misfit(f"{side}.json", "an object")
    judged = await (_request if side == "request" else _answer)(moderator, found)
    verdict: JsonObject = {
        "verdict": judged.action is not Action.BLOCKED,
        "data": {"explanation": judged.reason},
    }
    if judged.action not in (Action.PASSED, Action.BLOCKED):
        verdict["transformedData"] = {side: {"json": judged.value}}
    return verdict


async def _request(moderator: Moderator, body: JsonObject) -> ModeratedValue:
    """A request for a completion: its messages, or its prompt."""
    for name in ("prompt", "input"):
        if isinstance(body.get(name), str):
            return _within(body, name, await _text(moderator, body[name]))
    if "messages" not in body:
        return ModeratedValue(body)
    messages = _listed(body, "messages", where="request.json.messages")
    return _within(body, "messages", await _messages(moderator, messages))


async def _answer(moderator: Moderator, body: JsonObject) -> ModeratedValue:
    if "choices" not in body:
        return ModeratedValue(body)
    choices = _listed(body, "choices", where="response.json.choices")
    return _within(body, "choices", await _choices(moderator, choices))


async def _messages(moderator: Moderator, messages: Sequence[JsonObject]) -> ModeratedValue:
    async def judged(message: JsonObject) -> ModeratedValue:
        if message.get("role") in OPERATORS_ROLES:
            return ModeratedValue(message)
        return _within(message, "content", await _content(moderator, message.get("content")))

    return _joined(await asyncio.gather(*map(judged, messages)))


async def _choices(moderator: Moderator, choices: Sequence[JsonObject]) -> ModeratedValue:
    async def judged(choice: JsonObject) -> ModeratedValue:
        message = choice.get("message")
        if not isinstance(message, dict):
            return _within(choice, "text", await _content(moderator, choice.get("text")))
        if not await _calls_are_clean(moderator, message.get("tool_calls") or []):
            return ModeratedValue(choice, Action.BLOCKED)
        content = await _content(moderator, message.get("content"))
        return _within(choice, "message", _within(message, "content", content))

    return _joined(await asyncio.gather(*map(judged, choices)))


async def _content(moderator: Moderator, content: object) -> ModeratedValue:
    """A string, or a list of parts of which those with text are moderated."""
    if isinstance(content, str):
        return await _text(moderator, content)
    if not isinstance(content, list):
        return ModeratedValue(content)

    async def judged(part: Any) -> ModeratedValue:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            return _within(part, "text", await _text(moderator, part["text"]))
        return ModeratedValue(part)

    return _joined(await asyncio.gather(*map(judged, content)))


async def _text(moderator: Moderator, text: str) -> ModeratedValue:
    outcome = await moderator.prose(text)
    return ModeratedValue(outcome.text, outcome.action)


async def _all(moderator: Moderator, texts: Sequence[str]) -> ModeratedValue:
    return _joined(await asyncio.gather(*(_text(moderator, text) for text in texts)))


async def _calls_are_clean(moderator: Moderator, calls: object) -> bool:
    if not calls:
        return True
    found = ToolCalls()
    try:
        found.collect({"tool_calls": calls}, streamed=False)
    except MalformedError:
        raise _misfit("tool_calls", "a list of calls") from None
    return await found.are_clean(moderator)


def _joined(parts: Sequence[ModeratedValue]) -> ModeratedValue:
    action = max((part.action for part in parts), key=lambda one: one.rank, default=Action.PASSED)
    return ModeratedValue([part.value for part in parts], action)


def _within(whole: JsonObject, name: str, part: ModeratedValue) -> ModeratedValue:
    """The object with one field moderated, all others as they were."""
    return ModeratedValue(whole | {name: part.value} if name in whole else whole, part.action)


def _object(content: JsonObject, name: str) -> JsonObject:
    found = content.get(name)
    if isinstance(found, dict):
        return found
    raise _misfit(name, "an object")


def _listed(content: JsonObject, name: str, *, where: str) -> list[JsonObject]:
    found = content.get(name)
    if isinstance(found, list) and _is_list_of(found, dict):
        return found
    raise _misfit(where, "a list of objects")


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _misfit(param: str, wanted: str) -> ApiError:
    return ApiError(f"{param}: must be {wanted}", status=400, param=param)
