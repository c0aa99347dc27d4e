"""The paths that the guard answers as OpenAI's API does: moderations, embeddings, the list of models."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Literal, TypeVar

import anyio
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from guardrail.guard import Guard
from guardrail.integrations.completions.sanitize import without_text
from guardrail.integrations.openai_server.limits import while_connected
from guardrail.integrations.openai_server.proxy import Proxy
from guardrail.integrations.openai_server.request import read_json
from guardrail.integrations.strict_json import JsonObject
from guardrail.integrations.web.errors import ApiError, JsonReply, validation_error
from guardrail.outcome import Verdict
from guardrail.policy import Policy

__all__ = ["Question", "answered", "asked", "guard_routes"]

PREFIX = "guardrail-"
MODERATION = "guardrail-moderation"
MODELS = ("guardrail-embedding", MODERATION)
MAX_TEXTS = 256
LIKELY_SCORE = 0.5
CATEGORY_LABELS = {
    "harassment": "insult",
    "harassment/threatening": "threat",
    "hate": "identity_attack",
    "sexual": "sexual_explicit",
}
"""OpenAI's categories for which a label stands; those that nobody judged here are left out."""

Q = TypeVar("Q", bound=BaseModel)
Texts = Annotated[list[str], Field(max_length=MAX_TEXTS)]


class TextPart(BaseModel):
    """A part of a text; pictures can be judged by an upstream's model alone."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
    type: Literal["text"]
    text: str


class Question(BaseModel):
    """What all have in common: one text or several."""

    model_config = ConfigDict(strict=True, hide_input_in_errors=True)
    input: str | Texts

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class Moderation(Question):
    """As OpenAI's clients send it: without a model's name it is ours, and parts of text are one text."""

    model: str | None = None
    input: str | Texts | Annotated[list[TextPart], Field(max_length=MAX_TEXTS)]  # type: ignore[assignment]  # wider

    def texts(self) -> list[str]:
        if isinstance(self.input, str):
            return [self.input]
        texts = [item if isinstance(item, str) else item.text for item in self.input]
        return texts if all(isinstance(item, str) for item in self.input) else ["\n".join(texts)]


class Embedding(Question):
    """As OpenAI's clients send it; ``dimensions`` cannot be chosen."""

    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None


def guard_routes(proxy: Proxy) -> APIRouter:
    """The routes that need no upstream, and send on what asks for a model that is not ours."""
    router = APIRouter()

    @router.post("/v1/moderations")
    async def moderations(request: Request) -> Response:
        content = read_json(await request.body())
        # Without a model's name a text stays here: nobody asked for it to be sent on.
        model = content.get("model")
        if isinstance(model, str) and model.strip() and not _is_ours(content):
            return await proxy.forward_json(request, path="/v1/moderations")
        question = await asked(request, Moderation)
        guard = proxy.moderator_of(request, content).guard
        return await answered(proxy, request, partial(_moderated, guard, question))

    @router.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        if not _is_ours(read_json(await request.body())):
            return await proxy.forward_json(request, path="/v1/embeddings")
        question = await asked(request, Embedding)
        return await answered(proxy, request, partial(_embedded, proxy.moderators.default.guard, question))

    @router.get("/v1/models")
    async def models(request: Request) -> Response:
        return await answered(proxy, request, partial(_models, proxy, request))

    @router.get("/v1/models/{name:path}")
    async def model(request: Request, name: str) -> Response:
        return await answered(proxy, request, partial(_model, proxy, request, name))

    return router


async def asked(request: Request, kind: type[Q]) -> Q:
    """What a request's body asks; ApiError for a body of another shape."""
    content = read_json(await request.body())
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise validation_error(errors) from None


async def answered(proxy: Proxy, request: Request, work: Callable[[], Awaitable[JsonObject]]) -> Response:
    """What the work returns as JSON, unless the client leaves first or the time is over."""
    answer = await while_connected(request.receive, work, seconds=proxy.settings.max_seconds)
    return JsonReply(answer)


def _is_ours(question: JsonObject) -> bool:
    model = question.get("model")
    return isinstance(model, str) and model.startswith(PREFIX)


async def _moderated(guard: Guard, question: Moderation) -> JsonObject:
    verdicts = await anyio.to_thread.run_sync(guard.detect, question.texts())
    results = [_result(verdict, guard.policy) for verdict in verdicts]
    return {"id": "modr-guardrail", "model": (question.model or "").strip() or MODERATION, "results": results}


def _result(verdict: Verdict, policy: Policy) -> JsonObject:
    scores = {label: float(score) for label, score in verdict.scores.items()}
    scores |= {name: scores[label] for name, label in CATEGORY_LABELS.items() if label in scores}
    limits = {
        name: policy.thresholds.get(CATEGORY_LABELS.get(name, name), policy.threshold) for name in scores
    }
    # Scores are calibrated: if the policy has no limit for a label, a flagged text is what it likely is.
    flagged = {
        name: verdict.flagged and (score >= limit if limit is not None else score >= LIKELY_SCORE)
        for (name, score), limit in zip(scores.items(), limits.values(), strict=True)
    }
    return {
        "flagged": verdict.flagged,
        "categories": flagged,
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in scores},
    }


async def _embedded(guard: Guard, question: Embedding) -> JsonObject:
    rows = await anyio.to_thread.run_sync(guard.embed, question.texts())
    packed = question.encoding_format == "base64"
    return {
        "object": "list",
        "model": question.model,
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(row.astype("<f4").tobytes()).decode()
                if packed
                else row.tolist(),
            }
            for index, row in enumerate(rows)
        ],
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


async def _models(proxy: Proxy, request: Request) -> JsonObject:
    ours = [{"id": name, "object": "model", "created": 0, "owned_by": "guardrail"} for name in MODELS]
    if proxy.upstream is None:
        return {"object": "list", "data": ours}
    async with proxy.upstream.request("GET", "/v1/models", headers=request.headers.raw) as answer:
        listed = (await answer.json()).get("data")
    models = listed if isinstance(listed, list) else []
    kept = without_text(models, clean=await proxy.moderators.default.identifiers(models))
    theirs = [model for model in kept if isinstance(model, dict) and model.get("id")]
    return {"object": "list", "data": theirs + ours}


async def _model(proxy: Proxy, request: Request, name: str) -> JsonObject:
    """One model of the list: no path that a client makes up is asked for upstream."""
    listed: list[JsonObject] = (await _models(proxy, request))["data"]
    for model in listed:
        if model["id"] == name:
            return model
    raise ApiError("there is no such model", status=404, code="model_not_found")
