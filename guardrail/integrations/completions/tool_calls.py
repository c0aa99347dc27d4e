"""Calls of tools in an answer, put together from fragments and listed again."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field

from guardrail.integrations.completions.sanitize import new_id, strings_of
from guardrail.integrations.strict_json import (
    JsonObject,
    MalformedError,
    dumps,
    index_of,
    object_of,
    string_of,
)

__all__ = [
    "Call",
    "Calls",
]


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
