"""Rewriting by chat models behind OpenAI-compatible APIs: vLLM, SGLang, llama.cpp, Ollama, hosted ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError, UsageError, WithoutFrames
from guardrail.models.endpoint import Endpoint, RequestError, Session, malformed, together
from guardrail.rewriters.chat_answers import candidate_of
from guardrail.rewriters.chat_prompt import ChatPrompt
from guardrail.rewriters.wording import MAX_CHARACTERS

__all__ = ["PARAMETERS", "RemoteRewriter"]

PARAMETERS: Mapping[str, Any] = {"temperature": 0.7, "max_tokens": 512}
OURS = frozenset(("messages", "model", "n", "seed", "stream", "stream_options"))
PATH = "/chat/completions"
UNFINISHED = ("length", "content_filter")
FILTERED = ("content_filter", "content_policy_violation")
SEEDS = 1 << 31
MAX_NAME = 200


class RemoteRewriter:
    """Proposes neutral versions of segments as a chat model writes them; a guard verifies each of them.

    Safe to share between threads and in forked processes; it can be pickled, the key is not. The rewriters
    made by ``with_adapter`` share connections, their bound and the circuit.

    Args:
        url: The API's address, as its clients take it: ``http://127.0.0.1:8000/v1``.
        model: The model's name there; vLLM serves LoRA adapters under names of their own.
        key_env: The environment variable with the API's key; it is read for each request and kept nowhere.
        prompt: A ChatPrompt, or the file of one; default: the prompt that this package has for chat models.
        parameters: Further fields of a request; default: ``temperature`` 0.7 and ``max_tokens`` 512.
        seed: Send a seed made of the segment, for servers whose sampling can be repeated.
        max_choices: Choices that the server gives in one request, if it refuses to give as many as are asked
            for; None: all are asked for at once. What a server leaves out is asked for in further requests.
        concurrency: Requests in flight at a time.
        timeout: Seconds for one call of ``rewrite``, with all its requests and their retries.
        retries: Further tries of a request after status 429 or 5xx, or a connection that broke.

    Raises:
        ConfigError: For a wrong value; the message names it.
        MissingExtraError: If httpx is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        key_env: str | None = None,
        prompt: ChatPrompt | str | Path | None = None,
        parameters: Mapping[str, Any] | None = None,
        seed: bool = True,
        max_choices: int | None = None,
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 3,
    ) -> None:
        self._endpoint = Endpoint(
            url,
            place="rewriter",
            plugin=f"{__name__}.{type(self).__name__}",
            key_env=key_env,
            timeout=timeout,
            retries=retries,
            concurrency=concurrency,
        )
        self._model = _named(model)
        self._prompt = prompt if isinstance(prompt, ChatPrompt) else ChatPrompt.load(prompt)
        self._parameters = _parameters(PARAMETERS if parameters is None else parameters)
        self._seed = seed
        if max_choices is not None and (type(max_choices) is not int or max_choices < 1):
            raise ConfigError(f"rewriter max_choices must be 1 or more, or left out, got {max_choices!r}")
        self._max_choices = max_choices

    def rewrite(self, segments: Sequence[str], n: int) -> list[list[str]]:
        """Up to ``n`` different candidates per segment, in the server's order; see ``Rewriter.rewrite``.

        Empty for a segment that is blank, no valid Unicode or longer than 4000 characters, and if every
        answer is empty, unfinished, filtered or a refusal. Raises PluginError if the server fails,
        DeadlineError if it is late or the circuit is open.
        """
        if n < 1:
            raise UsageError(f"the number of candidates must be 1 or more, got {n}")
        try:
            with WithoutFrames():
                return self._rewritten(segments, n)
        finally:
            del segments

    def _rewritten(self, segments: Sequence[str], n: int) -> list[list[str]]:
        asked = [segment for segment in dict.fromkeys(segments) if _is_rewritable(segment)]
        rewrites = self._endpoint.run(partial(self._all, asked, n)) if asked else []
        candidates = dict(zip(asked, rewrites, strict=True))
        return [list(candidates.get(segment, ())) for segment in segments]

    def with_adapter(self, name: str) -> RemoteRewriter:
        """Another rewriter whose model is this one: on vLLM and SGLang the name of a LoRA adapter."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._model = _named(name)
        return other

    @property
    def identity(self) -> str:
        """What an audit calls it: the model, where it is, and a hash of how it is asked."""
        content = [
            [(each.role, each.content) for each in self._prompt.messages],
            self._parameters,
            self._seed,
        ]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return f"{self._model} at {self._endpoint.server.url}"[:MAX_NAME] + f" sha256:{digest}"

    async def _all(self, segments: Sequence[str], n: int, session: Session) -> list[list[str]]:
        return await together([self._candidates(segment, n, session) for segment in segments])

    async def _candidates(self, segment: str, n: int, session: Session) -> list[str]:
        """The candidates of one segment; what is asked, and under which seed, depends on it alone."""
        try:
            answers = await self._first(segment, n, session)
            each = len(answers)  # choices that this server gives in one request
            rest = [
                self._ask(segment, min(each, n - start), start, session) for start in range(each, n, each)
            ]
            answers += [answer for part in await together(rest) for answer in part]
        except RequestError as error:
            if error.code not in FILTERED:
                raise
            return []  # the server does not work on such a text: that is an answer, too
        texts = (candidate_of(answer, text=segment) for answer in answers[:n])
        candidates = (self._prompt.restored(each, text=segment) for each in texts if each is not None)
        return list(dict.fromkeys(candidates))

    async def _first(self, segment: str, n: int, session: Session) -> list[str]:
        width = min(n, self._max_choices or n)
        try:
            return await self._ask(segment, width, 0, session)
        except RequestError as error:
            if width == 1 or error.status not in (400, 422) or error.code in FILTERED:
                raise
        return await self._ask(segment, 1, 0, session)  # some servers refuse what others ignore

    async def _ask(self, segment: str, n: int, start: int, session: Session) -> list[str]:
        """``n`` answers or fewer, from the one with number ``start`` on; empty in place of a useless one."""
        body = {"model": self._model, "messages": self._prompt.filled(segment), **self._parameters}
        if n > 1:
            body["n"] = n
        if self._seed:
            body["seed"] = (
                int.from_bytes(hashlib.sha256(segment.encode()).digest()[:4], "big") + start
            ) % SEEDS
        return await session.post(PATH, body, read=_answers)

    def __reduce__(self) -> tuple[Any, ...]:
        server = self._endpoint.server
        arguments: dict[str, Any] = {
            "model": self._model,
            "key_env": server.key_env,
            "prompt": self._prompt,
            "parameters": self._parameters,
            "seed": self._seed,
            "max_choices": self._max_choices,
            "concurrency": server.concurrency,
            "timeout": server.timeout,
            "retries": server.retries,
        }
        return partial(type(self), server.url, **arguments), ()

    def __repr__(self) -> str:
        return f"RemoteRewriter({self._endpoint.server.url!r}, model={self._model!r})"


def _named(model: object) -> str:
    if isinstance(model, str) and model.strip() and model.isprintable():
        return model
    raise ConfigError("rewriter model must be the name of a model on the server, as GET /v1/models lists it")


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"rewriter parameters must be a mapping, got {type(given).__name__}")
    if taken := sorted(OURS & set(given)):
        raise ConfigError(f"rewriter parameters cannot set {', '.join(taken)}: the rewriter does that itself")
    try:
        parameters = json.loads(json.dumps(dict(given), allow_nan=False))
    except (TypeError, ValueError):
        raise ConfigError(
            "rewriter parameters must hold what JSON can: strings, numbers, lists, tables"
        ) from None
    return dict(parameters)


def _is_rewritable(segment: str) -> bool:
    try:
        segment.encode()
    except UnicodeEncodeError:  # a lone surrogate, which is not text
        return False
    return bool(segment.strip()) and len(segment) <= MAX_CHARACTERS


def _answers(content: Any) -> list[str]:
    """The texts of a completion's choices in their order, empty for one that was refused or cut short."""
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(each, dict) for each in choices):
        raise malformed("JSON without choices")
    if all(type(each.get("index")) is int for each in choices):
        choices.sort(key=lambda each: each["index"])
    return [_text_of(each) for each in choices]


def _text_of(choice: Mapping[str, Any]) -> str:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise malformed("a choice without a message")
    if choice.get("finish_reason") in UNFINISHED or message.get("refusal"):
        return ""
    content = message.get("content")
    if isinstance(content, list):  # parts, of which some are text
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None:  # a tool call, or a thought that came to no end
        return ""
    if not isinstance(content, str):
        raise malformed("content that is not text")
    return content
