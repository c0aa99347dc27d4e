"""Answers of language models taken apart: what is kept, what is text, what is a call of a tool."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardrail.integrations.openai_server.identifiers import new_id
from guardrail.integrations.openai_server.wire import JsonObject, MalformedError, dumps, number_in, strings_of

__all__ = [
    "BLOCKED",
    "CHAT",
    "DOCUMENT",
    "ENVELOPE",
    "KNOWN_FIELDS",
    "TEXT",
    "Call",
    "Calls",
    "Kind",
    "Terms",
    "envelope",
    "finish_reason",
    "index_of",
    "message_of",
    "object_of",
    "plain",
    "string_of",
]

BLOCKED = "content_filter"
FINISH_REASONS = {
    **dict.fromkeys(("stop", "complete", "end_turn", "eos", "eos_token", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_length", "max_tokens", "model_length"), "length"),
    **dict.fromkeys(("tool_calls", "tool_use"), "tool_calls"),
    "function_call": "function_call",
    **dict.fromkeys((BLOCKED, "recitation", "safety", "sensitive"), BLOCKED),
}
"""Why a choice is over, as upstreams name it in lower case, and as OpenAI does."""
MOST_CHOICES = 128
KNOWN_FIELDS = frozenset(
    {
        *("annotations", "content", "delta", "finish_reason", "function_call", "index", "logprobs"),
        *("message", "refusal", "role", "text", "tool_calls"),
    }
)
"""Fields that have a meaning here, so that no setting decides about them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two sorts of answers: where a choice keeps its text, and what the answer calls itself."""

    whole: str
    chunk: str
    id_prefix: str
    fields: tuple[str, ...]
    message: str | None
    delta: str | None

    def choices(self, answer: JsonObject) -> Iterator[tuple[int, JsonObject]]:
        """The choices of an answer or chunk, each under an index of its own; one without has its position.

        MalformedError where one cannot be read, behind the others: these are not to suffer for it.
        """
        found = answer.get("choices")
        if not isinstance(found, list):
            raise MalformedError("no list of choices")
        seen: set[int] = set()
        problem: MalformedError | None = None
        for position, choice in enumerate(found):
            if choice is None:
                continue
            try:
                index = _index_of_choice(choice, position, seen)
            except MalformedError as error:
                problem = problem or error
            else:
                yield index, choice
        if problem is not None:
            raise problem


DOCUMENT = "content"
CHAT = Kind(
    "chat.completion", "chat.completion.chunk", "chatcmpl-", ("content", "refusal"), "message", "delta"
)
TEXT = Kind("text_completion", "text_completion", "cmpl-", ("text",), None, None)
ENVELOPE = ("id", "model", "system_fingerprint", "service_tier")
"""Identifiers that surround the choices."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How an answer is read: its kind, the fields that a setting allows, whether its content is JSON, and
    the model that the client asked for, None where it named none.

    JSON that was asked for (``response_format``) is not prose: it is judged whole, as a reader of it decodes
    it, and never rewritten.
    """

    kind: Kind
    allowed: tuple[str, ...] = ()
    document: bool = False
    model: str | None = field(default=None, repr=False)

    @property
    def prose(self) -> tuple[str, ...]:
        """The fields that hold prose."""
        return (*self.allowed, *(name for name in self.kind.fields if not self.is_document(name)))

    def is_document(self, name: str) -> bool:
        """True for the field that holds JSON."""
        return self.document and name == DOCUMENT


def _index_of_choice(choice: object, position: int, seen: set[int]) -> int:
    if not isinstance(choice, dict):
        raise MalformedError("a choice is not an object")
    index = index_of(choice, default=position)
    if index in seen:
        raise MalformedError("choices share an index")
    seen.add(index)
    return index


def index_of(part: JsonObject, *, default: int = 0) -> int:
    """The index of a choice or of a fragment of a call, as a number or as its digits."""
    index = part.get("index")
    if index is None:
        return default
    index = number_in(index)
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    if type(index) is not int or not 0 <= index < MOST_CHOICES:
        raise MalformedError(f"an index is not a number below {MOST_CHOICES}")
    return index


def object_of(part: JsonObject, name: str | None) -> JsonObject:
    """The object under a name, empty where there is none; the part itself for no name.

    Some languages write an empty object as an empty list, others as an empty string.
    """
    found = part if name is None else part.get(name)
    if not found:
        return {}
    if not isinstance(found, dict):
        raise MalformedError(f"{name} is not an object")
    return found


def message_of(choice: JsonObject, kind: Kind, *, streamed: bool) -> JsonObject:
    """What a choice says: its message, or in a stream its delta.

    Some upstreams give the one in place of the other, or the text of a chat by itself.
    """
    if kind is not CHAT:
        return choice
    for name in (CHAT.delta, CHAT.message) if streamed else (CHAT.message, CHAT.delta):
        if found := object_of(choice, name):
            return found
    return {DOCUMENT: choice["text"]} if choice.get("text") else {}


def string_of(part: JsonObject, name: str) -> str:
    """The string under a name, empty where there is none."""
    found = part.get(name)
    if not found:
        return ""
    if not isinstance(found, str):
        raise MalformedError(f"{name} is not a string")
    return found


def envelope(answer: JsonObject, *, terms: Terms, streamed: bool, clean: Container[str]) -> JsonObject:
    """What surrounds the choices, with no string that is not clean.

    In place of an answer's id stands one of ours, in place of a model's name the one that was asked for.
    """
    kind = terms.kind
    return {
        "id": new_id(kind.id_prefix),
        "object": kind.chunk if streamed else kind.whole,
        "created": number_in(answer.get("created")) or 0,
        "model": terms.model,
        **{name: value for name in ENVELOPE if isinstance(value := answer.get(name), str) and value in clean},
    }


def finish_reason(reason: object) -> str | None:
    """The reason as OpenAI names it; None for what is no reason, or none that is known here."""
    if not isinstance(reason, str):
        return None
    name = reason.strip().rpartition(".")[2]  # also "FinishReason.STOP"
    return FINISH_REASONS.get(name.lower().replace("-", "_"))


@dataclass(slots=True)
class Call:
    """One call of a tool, put together from one or more fragments."""

    id: str = field(default="", repr=False)
    custom: bool = False
    name: str = field(default="", repr=False)
    arguments: str = field(default="", repr=False)
    empty: str = ""

    def add(self, fragment: JsonObject) -> None:
        """Takes up a fragment, or a whole call."""
        self.id = _id_of(fragment) or self.id
        self.custom = self.custom or fragment.get("type") == "custom"
        self.add_function(object_of(fragment, "custom" if self.custom else "function"))

    def add_function(self, function: JsonObject) -> None:
        """Takes up name and arguments alone."""
        self.name += string_of(function, "name")
        given = function.get(self._argument)
        if given in ({}, []):
            self.empty = dumps(given)  # stands unless there are others: some upstreams begin with it
        elif isinstance(given, (dict, list)):
            self.arguments += dumps(given)
        else:
            self.arguments += string_of(function, self._argument)

    def strings(self) -> list[str]:
        """Everything in it that someone could read, but the id."""
        return [self.name, *strings_of(self.arguments)]

    def function(self) -> JsonObject:
        """Name and arguments."""
        return {"name": self.name, self._argument: self.arguments or self.empty}

    def whole(self) -> JsonObject:
        """The call as a message lists it."""
        kind = "custom" if self.custom else "function"
        return {"id": self.id, "type": kind, kind: self.function()}

    @property
    def _argument(self) -> str:
        return "input" if self.custom else "arguments"


class Calls:
    """All calls of one choice, in the order of their indexes."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._function: Call | None = None

    def collect(self, part: JsonObject, *, streamed: bool) -> None:
        """Takes up what a message or delta says of calls."""
        listed = part.get("tool_calls") or []
        if not isinstance(listed, list) or not all(call is None or isinstance(call, dict) for call in listed):
            raise MalformedError("tool_calls is not a list of objects")
        for fragment in filter(None, listed):
            index = self._place(fragment) if streamed else len(self._calls)
            self._calls.setdefault(index, Call()).add(fragment)
        if function := object_of(part, "function_call"):
            self._function = self._function or Call()
            self._function.add_function(function)

    def _place(self, fragment: JsonObject) -> int:
        """The index of the call that a fragment belongs to.

        Some servers send whole calls without an index: an id that was not there yet begins the next one, or
        another name where there are no ids.
        """
        if fragment.get("index") is not None:
            return index_of(fragment)
        if not self._calls:
            return 0
        latest = max(self._calls)
        call, found = self._calls[latest], _id_of(fragment)
        is_named = bool(call.name and object_of(fragment, "function").get("name"))
        begins = found not in [each.id for each in self._calls.values()] if found else is_named
        return index_of({"index": latest + begins})

    def strings(self) -> list[str]:
        """Everything in them that someone could read, but the ids."""
        return [text for call in self._every() for text in call.strings()]

    def ids(self) -> list[str]:
        """The ids of calls, under which a client hands in what came of them."""
        return [call.id for call in self._calls.values()]

    def name_anew(self, *, unless: Container[str]) -> None:
        """Gives each call an id of ours unless its own may stand.

        Answers are kept nowhere: the client sends call and result back under one id, whichever it is.
        """
        for call in self._calls.values():
            if call.id not in unless:
                call.id = new_id("call_")

    def fields(self, *, streamed: bool) -> JsonObject:
        """The fields of a message, or of a delta, that hold them; none where there are no calls."""
        found: JsonObject = {}
        if self._calls:
            found["tool_calls"] = [
                ({"index": index} if streamed else {}) | call.whole()
                for index, call in sorted(self._calls.items())
            ]
        if self._function is not None:
            found["function_call"] = self._function.function()
        return found

    def _every(self) -> Sequence[Call]:
        calls = [call for _, call in sorted(self._calls.items())]
        return calls if self._function is None else [*calls, self._function]


def _id_of(fragment: JsonObject) -> str:
    """The id of a call, empty where it is none that could be told apart."""
    found = fragment.get("id")
    return found if isinstance(found, str) else ""


def plain(value: Any) -> bool:
    """True for a value that holds no text at all."""
    return isinstance(value, (bool, int, float))
