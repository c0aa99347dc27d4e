"""Tool calls of an answer: put together from fragments, moderated as a whole, listed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.sanitize import new_id, strings_in_json
from guardrail.integrations.strict_json import (
    JsonObject,
    MalformedError,
    dumps,
    index_in,
    object_in,
    string_in,
)

__all__ = ["ToolCalls"]


@dataclass(slots=True)
class ToolCall:
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
        self.add_function(object_in(fragment, "custom" if self.custom else "function"))

    def add_function(self, function: JsonObject) -> None:
        """Takes up name and arguments alone."""
        self.name += string_in(function, "name")
        given = function.get(self._argument)
        if given in ({}, []):
            self.empty = dumps(given)  # stands unless there are others: some upstreams begin with it
        elif isinstance(given, (dict, list)):
            self.arguments += dumps(given)
        else:
            self.arguments += string_in(function, self._argument)

    def strings(self) -> list[str]:
        """Everything in it that someone could read, but the id."""
        return [self.name, *strings_in_json(self.arguments)]

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


class ToolCalls:
    """All calls of one choice, in the order of their indexes."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolCall] = {}
        self._function: ToolCall | None = None

    def collect(self, part: JsonObject, *, streamed: bool) -> None:
        """Takes up what a message or delta says of calls."""
        listed = part.get("tool_calls") or []
        if not isinstance(listed, list) or not all(call is None or isinstance(call, dict) for call in listed):
            raise MalformedError("tool_calls is not a list of objects")
        for fragment in filter(None, listed):
            index = self._place(fragment) if streamed else len(self._calls)
            self._calls.setdefault(index, ToolCall()).add(fragment)
        if function := object_in(part, "function_call"):
            self._function = self._function or ToolCall()
            self._function.add_function(function)

    def _place(self, fragment: JsonObject) -> int:
        """The index of the call that a fragment belongs to.

        Some servers send whole calls without an index: an id that was not there yet begins the next one, or
        another name if there are no ids.
        """
        if fragment.get("index") is not None:
            return index_in(fragment)
        if not self._calls:
            return 0
        latest = max(self._calls)
        call, found = self._calls[latest], _id_of(fragment)
        is_named = bool(call.name and object_in(fragment, "function").get("name"))
        begins = found not in [each.id for each in self._calls.values()] if found else is_named
        return index_in({"index": latest + begins})

    async def are_clean(self, moderator: Moderator) -> bool:
        """False if names or arguments hold something toxic; a toxic id is replaced by one of ours.

        Answers are kept nowhere: the client sends call and result back under one id, whichever it is.
        """
        if not await moderator.is_clean([text for call in self._every() for text in call.strings()]):
            return False
        clean = await moderator.identifiers([call.id for call in self._calls.values()])
        for call in self._calls.values():
            if call.id not in clean:
                call.id = new_id("call_")
        return True

    def fields(self, *, streamed: bool) -> JsonObject:
        """The fields of a message, or of a delta, that hold them; none if there are no calls."""
        found: JsonObject = {}
        if self._calls:
            found["tool_calls"] = [
                ({"index": index} if streamed else {}) | call.whole()
                for index, call in sorted(self._calls.items())
            ]
        if self._function is not None:
            found["function_call"] = self._function.function()
        return found

    def _every(self) -> Sequence[ToolCall]:
        calls = [call for _, call in sorted(self._calls.items())]
        return calls if self._function is None else [*calls, self._function]


def _id_of(fragment: JsonObject) -> str:
    """The id of a call, empty if it is not one that could be told apart."""
    found = fragment.get("id")
    return found if isinstance(found, str) else ""
