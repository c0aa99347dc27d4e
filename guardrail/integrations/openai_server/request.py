"""What a client asks of a language model, which policy it gets, and how each API answers it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Protocol

from starlette.datastructures import Headers

from guardrail.config import PolicyRule
from guardrail.errors import ConfigError
from guardrail.guard import Guard
from guardrail.integrations.completions.completion import AnswerShape, CompletionKind
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.openai_server.sse import event
from guardrail.integrations.strict_json import JsonObject, MalformedError, parse
from guardrail.integrations.web.auth import PROXY_KEYS, Keys
from guardrail.integrations.web.errors import ApiError
from guardrail.outcome import Outcome
from guardrail.policy import Policy

__all__ = ["AnswerStream", "CompletionRequest", "Exchange", "Moderators", "Write", "read_json"]

JSON_FORMATS = ("json_object", "json_schema")
RawHeaders = list[tuple[bytes, bytes]]
Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A request for a completion; ``body`` goes upstream as it came.

    ``choices_wanted`` is the number of choices that are of use: None if the answer's end is wanted in any
    case, for the usage report behind them, or if nobody can tell.
    """

    path: str
    headers: RawHeaders = field(repr=False)
    body: bytes = field(repr=False)
    shape: AnswerShape
    streamed: bool
    choices_wanted: int | None

    @classmethod
    def read(
        cls,
        body: bytes,
        *,
        path: str,
        headers: RawHeaders,
        kind: CompletionKind,
        allowed: tuple[str, ...],
    ) -> CompletionRequest:
        """The request in a body; ApiError if that is not a JSON object."""
        content = read_json(body)
        wanted_format = content.get("response_format")
        model = content.get("model")
        document = isinstance(wanted_format, dict) and wanted_format.get("type") in JSON_FORMATS
        return cls(
            path=path,
            headers=headers,
            body=body,
            shape=AnswerShape(kind, allowed, document, model if isinstance(model, str) else None),
            streamed=content.get("stream") is True,
            choices_wanted=_choices_wanted(content),
        )


def read_json(body: bytes) -> JsonObject:
    """The JSON object in a body; ApiError if it is something else."""
    try:
        return parse(body)
    except MalformedError as error:
        raise ApiError(f"the body is {error}", status=400) from None


def _choices_wanted(content: JsonObject) -> int | None:
    options = content.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        return None
    prompts = content.get("prompt")
    batch = len(prompts) if isinstance(prompts, list) and all(isinstance(p, str) for p in prompts) else 1
    n = content.get("n") or 1
    return n * max(batch, 1) if type(n) is int else None


class AnswerStream(Protocol):
    """A streamed answer while it is moderated."""

    @property
    def is_over(self) -> bool: ...
    async def run(self, events: AsyncIterable[object], *, deadline: float) -> None: ...


class Exchange:
    """A request for an answer that ``moderator`` judges; ``body`` goes upstream as it came.

    ``last`` ends a stream that ended well.
    """

    def __init__(
        self,
        path: str,
        headers: RawHeaders,
        body: bytes,
        *,
        moderator: Moderator,
        streamed: bool,
        last: bytes = b"",
        method: str = "POST",
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.moderator = moderator
        self.streamed = streamed
        self.last = last

    def error_in(self, content: JsonObject) -> object:
        """The error that a whole answer is, or None."""
        raise NotImplementedError

    async def moderated(self, content: JsonObject) -> JsonObject:
        """A whole answer, moderated; MalformedError if it has another shape."""
        raise NotImplementedError

    def stream(self, write: Write) -> AnswerStream:
        """A streamed answer, of which ``write`` gets the bytes."""
        raise NotImplementedError

    def error_event(self, error: ApiError) -> bytes:
        """The event that ends a stream in its middle."""
        return event(error.body)


class Moderators:
    """The moderators of a server: one for each rule, and ``default`` for requests that no rule fits.

    They share the models of one guard. Raises ConfigError for a rule that asks for a key that has no name, or
    whose policy cannot be.
    """

    def __init__(
        self,
        guard: Guard,
        rules: Sequence[PolicyRule],
        *,
        keys: Keys,
        tenant_header: str,
        on_outcome: Callable[[Outcome, Policy], object] | None = None,
    ) -> None:
        self._keys = keys
        self._tenant_header = tenant_header
        self._rules = []
        for rule in rules:
            judged = guard.with_policy(_checked(rule, keys).policy(guard.policy))
            self._rules.append((rule, Moderator(judged, on_outcome=on_outcome)))
        self.default = Moderator(guard, on_outcome=on_outcome)

    @property
    def guards(self) -> tuple[Guard, ...]:
        """Every guard that is asked, each with queues of its own."""
        moderators = (self.default, *(moderator for _, moderator in self._rules))
        return tuple(guard for moderator in moderators for guard in moderator.guards)

    def choose(self, headers: Headers, model: object) -> Moderator:
        """The moderator of a request with these headers for this model."""
        key, tenant = self._keys.name_of(headers), headers.get(self._tenant_header)
        for rule, moderator in self._rules:
            is_key = rule.key is None or rule.key == key
            if is_key and _fits(rule.tenant, tenant) and _fits(rule.model, model):
                return moderator
        return self.default


def _checked(rule: PolicyRule, keys: Keys) -> PolicyRule:
    if rule.key is not None and rule.key not in keys.names.values():
        named = ", ".join(sorted(set(keys.names.values()))) or "none"
        raise ConfigError(
            f"server policies {rule.name!r}: no key is named {rule.key!r}; write {rule.key}=KEY in "
            f"{PROXY_KEYS} (named there: {named})"
        )
    return rule


def _fits(pattern: str | None, value: object) -> bool:
    return pattern is None or (isinstance(value, str) and fnmatchcase(value, pattern))
