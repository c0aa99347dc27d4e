"""POST /v1/detoxify: texts under a policy of the request's own, sentence by sentence if asked, and why."""

from __future__ import annotations

import asyncio
import math
import re
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from guardrail.errors import ConfigError, FailureError
from guardrail.guard import Guard
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.openai_server.guard_api import Question, answered, asked
from guardrail.integrations.openai_server.proxy import Proxy
from guardrail.integrations.openai_server.sse import DONE, EventStreamResponse, EventWriter, event
from guardrail.integrations.strict_json import JsonObject
from guardrail.integrations.web.errors import ApiError, guard_unavailable
from guardrail.outcome import Outcome
from guardrail.outcome.explanation import Attempt, Sentence
from guardrail.outcome.reasons import in_words
from guardrail.outcome.rows import verdict_row
from guardrail.policy import Policy
from guardrail.text.segment import Segment, Segmenter

__all__ = ["detoxify_routes"]

MAX_REMEMBERED = 64
_WORDS = re.compile(r"\s*\S+|\s+")

Sender = MemoryObjectSendStream[JsonObject]


class PolicyOverrides(BaseModel):
    """What a request wants different; None leaves it as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    ladder: list[Literal["rewrite", "mask", "block"]] | None = None


class Detoxify(Question):
    """Texts, the policy to use in place of the server's own, and how much is said about them.

    Args:
        sentences: List every sentence's scores.
        explain: List every sentence with what was tried for it, refused candidates included.
        stream: Answer with events, one for each sentence as soon as it is done; takes one text.
        pace: Words per second in which a streamed text reaches the guard, as a model would write it; all at
            once if omitted.
    """

    model_config = ConfigDict(extra="forbid")
    policy: PolicyOverrides = PolicyOverrides()
    sentences: bool = False
    explain: bool = False
    stream: bool = False
    pace: Annotated[float, Field(ge=1, le=1000)] | None = None


class ModeratorCache:
    """Moderators by policy, the latest ones remembered; all share the models of the server's."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], Moderator] = OrderedDict()

    def moderator(self, base: Moderator, choice: PolicyOverrides) -> Moderator:
        """The moderator under the chosen policy; ApiError for a ladder that cannot be."""
        policy = self._policy(base.guard.policy, choice)
        if policy == base.guard.policy:
            return base
        name = (policy.name, policy.digest())
        if name not in self._known:
            self._known[name] = base.with_policy(policy)
        self._known.move_to_end(name)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return self._known[name]

    def _policy(self, policy: Policy, choice: PolicyOverrides) -> Policy:
        try:
            if choice.threshold is not None:
                policy = replace(policy, threshold=choice.threshold)
            if choice.ladder is not None:
                policy = replace(policy, ladder=tuple(choice.ladder))
        except ConfigError as error:
            raise ApiError(str(error), status=400, param="policy") from None
        return policy


def detoxify_routes(proxy: Proxy) -> APIRouter:
    """The one path, whole and streamed."""
    router = APIRouter()
    policies = ModeratorCache()

    @router.post("/v1/detoxify")
    async def detoxify(request: Request) -> Response:
        question = await asked(request, Detoxify)
        moderator = policies.moderator(proxy.moderator_of(request, {}), question.policy)
        if not question.stream:
            return await answered(proxy, request, partial(_whole, question, moderator))
        text = _only_text(question)
        return EventStreamResponse(
            lambda writer: _play(text, question, moderator, writer),
            seconds=proxy.settings.max_seconds,
            on_cut=proxy.metrics.count_cut,
        )

    return router


def _only_text(question: Detoxify) -> str:
    if isinstance(question.input, str):
        return question.input
    raise ApiError("a stream takes one text: send input as a string", status=400, param="input")


async def _whole(question: Detoxify, moderator: Moderator) -> JsonObject:
    if question.pace is not None:
        raise ApiError("pace is for streams: send stream, too", status=400, param="pace")

    async def row_of(text: str) -> JsonObject:
        if question.explain:
            explanation = await moderator.explained(text)
            sentences = [_explained(sentence) for sentence in explanation.sentences]
            return _explained_outcome(explanation.outcome) | {"sentences": sentences}
        outcome = await moderator.prose(text)
        row = _outcome_row(outcome)
        if question.sentences:
            row["sentences"] = await anyio.to_thread.run_sync(_scored, moderator.guard, text, outcome)
        return row

    rows = await asyncio.gather(*map(row_of, question.texts()))
    return {"object": "list", "policy": moderator.guard.policy.digest(), "outcomes": rows}


async def _play(text: str, question: Detoxify, moderator: Moderator, writer: EventWriter) -> None:
    """Writes what the text's sentences are, each one once it is done, and in the end the outcome."""
    segments = _segments(moderator.guard.policy, text)
    started = {
        "object": "detoxify.started",
        "policy": moderator.guard.policy.digest(),
        "sentences": [{"start": core.start, "end": core.end} for core in map(_core, segments)],
    }
    await writer.write(event(started))
    failure: FailureError | None = None
    sender, rows = anyio.create_memory_object_stream[JsonObject](math.inf)

    async def work() -> None:
        nonlocal failure
        try:
            async with sender:
                await _moderate(text, question, moderator, sender)
        except FailureError as error:  # raised behind the tasks, which would wrap it
            failure = error

    async with anyio.create_task_group() as tasks, rows:
        tasks.start_soon(work)
        async for row in rows:
            await writer.write(event(row))
    if failure is not None:
        raise guard_unavailable(failure) from None
    await writer.write(DONE)


async def _moderate(text: str, question: Detoxify, moderator: Moderator, sender: Sender) -> None:
    send = partial(_send_sentence, question.explain, sender)
    if not moderator.guard.policy.can_stream:  # nothing may be shown before the end
        explanation = await moderator.explained(text)
        for sentence in explanation.sentences:
            send(sentence)
        outcome = explanation.outcome
    elif question.pace is None:
        # A sentence at a time, so that none waits for the rewrite of a later one.
        chunks = [segment.text for segment in _segments(moderator.guard.policy, text, empty=True)]
        outcome = await moderator.explained_stream(chunks, send)
    else:
        async with anyio.create_task_group() as tasks:
            inlet, words = anyio.create_memory_object_stream[str](math.inf)
            tasks.start_soon(_type, text, question.pace, inlet, sender)
            async with words:
                outcome = await moderator.explained_stream(words, send)
            tasks.cancel_scope.cancel()  # if it was blocked, the rest is not needed
    sender.send_nowait({"object": "detoxify.outcome", **_explained_outcome(outcome)})


async def _type(text: str, pace: float, inlet: MemoryObjectSendStream[str], sender: Sender) -> None:
    """Hands in the text word by word, however far the guard has come, as a model does."""
    end = 0
    async with inlet:
        for word in _WORDS.findall(text):
            await anyio.sleep(1 / pace)
            end += len(word)
            sender.send_nowait({"object": "detoxify.read", "end": end})
            inlet.send_nowait(word)


def _send_sentence(explain: bool, sender: Sender, sentence: Sentence) -> None:  # bound by partial
    row = _explained(sentence)
    if not explain:
        del row["attempts"]
    sender.send_nowait({"object": "detoxify.sentence", **row})


def _outcome_row(outcome: Outcome) -> JsonObject:
    row = outcome.to_dict()
    del row["failures"]  # modules and lines of the server's own code are for its operator
    return row


def _explained_outcome(outcome: Outcome) -> JsonObject:
    return _outcome_row(outcome) | {"degraded_reasons": [_reason(name) for name in outcome.degraded]}


def _explained(sentence: Sentence) -> JsonObject:
    """A sentence with what became of it and why, in names and in words."""
    edit = sentence.edit
    return {
        "start": sentence.start,
        "end": sentence.end,
        "scores": verdict_row(sentence.verdict)["scores"],
        "flagged": edit is not None,
        "action": "passed" if edit is None else str(edit.action),
        "would": None if edit is None or edit.would is None else str(edit.would),
        "after": None if edit is None else edit.after,
        "reasons": [] if edit is None else [_reason(name) for name in edit.failed_checks],
        "attempts": [_attempt(attempt, sentence) for attempt in sentence.attempts],
    }


def _attempt(attempt: Attempt, sentence: Sentence) -> JsonObject:
    taken = sentence.edit is not None and not attempt.failed_checks and attempt.text == sentence.edit.after
    return {
        "step": attempt.step,
        "text": attempt.text,
        "taken": taken,
        "reasons": [_reason(name) for name in attempt.failed_checks],
        "similarity": attempt.similarity,
        "acceptable": attempt.acceptable,
    }


def _reason(name: str) -> dict[str, str]:
    return {"name": name, "words": in_words(name)}


def _segments(policy: Policy, text: str, *, empty: bool = False) -> list[Segment]:
    segmenter = Segmenter(segment_min=policy.segment_min, segment_max=policy.segment_max)
    segments = (*segmenter.feed(text), *segmenter.close())
    return [segment for segment in segments if segment.body or empty]


def _core(segment: Segment) -> Any:
    """The characters of a segment that are judged, by their place in the text."""
    return segment.core.shifted(segment.start)


def _scored(guard: Guard, text: str, outcome: Outcome) -> list[JsonObject]:
    """``start`` and ``end`` (offsets into the text), ``scores`` and ``flagged`` of every segment.

    Scores are of the segment alone; those of a segment that was edited are the ones that it was edited for.
    """
    segments = _segments(guard.policy, text)
    verdicts = guard.detect([segment.body for segment in segments])
    edits = {edit.start: edit for edit in outcome.edits}
    rows = []
    for segment, verdict in zip(segments, verdicts, strict=True):
        core = _core(segment)
        edit = edits.get(core.start)
        row = verdict_row(verdict if edit is None else edit.verdict)
        flagged = edit is not None or verdict.flagged
        rows.append({"start": core.start, "end": core.end, "scores": row["scores"], "flagged": flagged})
    return rows
