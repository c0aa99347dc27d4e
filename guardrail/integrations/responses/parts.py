"""Items and parts of a response while they are streamed, and the events that open and close them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from guardrail.integrations.completions.voice import EventText
from guardrail.integrations.responses.response import LISTS, PROSE, is_prose_item, list_in, refusal_part
from guardrail.integrations.strict_json import JsonObject

__all__ = ["ADDED", "DONE", "Part", "ResponseItem", "empty_part", "refusal_events"]

ADDED, DONE = "response.output_item.added", "response.output_item.done"


@dataclass(slots=True)
class Part:
    """One part of an item. ``place`` names it in its events, ``heard`` are its annotations as they came."""

    kind: str
    place: JsonObject
    text: EventText
    frame: JsonObject = field(repr=False)
    heard: list[JsonObject] = field(default_factory=list, repr=False)
    annotations: list[JsonObject] = field(default_factory=list, repr=False)
    has_logprobs: bool = False
    is_finished: bool = False
    is_closed: bool = False

    def opened(self) -> JsonObject:
        """The event that opens it."""
        return {"type": f"{self._around}.added", **self.place, "part": self.frame}

    def delta(self, text: str) -> JsonObject:
        """The event that brings a piece of its text."""
        return {"type": f"{self._prefix}.delta", **self.place, **self._said("delta", text)}

    def done(self) -> JsonObject:
        """The event that ends its text."""
        return {"type": f"{self._prefix}.done", **self.place, **self._said(PROSE[self.kind], self.text.text)}

    def closed(self) -> JsonObject:
        """The event that closes it."""
        return {"type": f"{self._around}.done", **self.place, "part": self.shown()}

    def shown(self) -> JsonObject:
        """The part as it stands in its item."""
        annotated = {"annotations": self.annotations} if "annotations" in self.frame else {}
        return self.frame | {PROSE[self.kind]: self.text.text} | annotated

    def _said(self, name: str, text: str) -> JsonObject:
        # Log probabilities spell the text as it was, and the words that it might have had.
        return {name: text} | ({"logprobs": []} if self.has_logprobs else {})

    @property
    def _prefix(self) -> str:
        return f"response.{'reasoning_summary_text' if self.kind == 'summary_text' else self.kind}"

    @property
    def _around(self) -> str:
        return f"response.{'reasoning_summary' if self.kind == 'summary_text' else 'content'}_part"


@dataclass(slots=True)
class ResponseItem:
    """One item. ``held`` are a tool's events until its item is whole, ``done`` is what was shown of it."""

    index: int
    frame: JsonObject = field(repr=False)
    parts: dict[tuple[str, int], Part] = field(default_factory=dict)
    held: list[JsonObject] = field(default_factory=list, repr=False)
    done: JsonObject | None = field(default=None, repr=False)

    @property
    def is_prose(self) -> bool:
        """True for a message or reasoning."""
        return is_prose_item(self.frame)

    def added(self) -> JsonObject:
        """The event that opens it."""
        return {"type": ADDED, "output_index": self.index, "item": self.frame}

    def closed(self, done: JsonObject) -> JsonObject:
        """The event that closes it, with what it holds now."""
        self.done = done
        return {"type": DONE, "output_index": self.index, "item": done}

    def with_parts(self, frame: JsonObject, came: JsonObject) -> JsonObject:
        """The item around its parts: those with text as they were shown, others as they ``came``."""
        parts: JsonObject = {}
        for name in LISTS[self.frame["type"]]:
            shown = self._listed(name, list_in(came, name))
            if shown or name in frame:
                parts[name] = shown
        return frame | parts

    def _listed(self, name: str, came: Sequence[JsonObject]) -> list[JsonObject]:
        places = [at for listed, at in self.parts if listed == name]
        count = max([len(came), *(at + 1 for at in places)])
        return [
            self.parts[name, at].shown() if (name, at) in self.parts else came[at]
            for at in range(count)
            if (name, at) in self.parts or at < len(came)
        ]

    @property
    def end(self) -> int:
        """The place behind its content."""
        return max([at for name, at in self.parts if name == "content"], default=-1) + 1


def empty_part(kind: str) -> JsonObject:
    """A part before its text comes."""
    return {"type": kind, PROSE[kind]: ""} | ({"annotations": []} if kind == "output_text" else {})


def refusal_events(item: ResponseItem, position: int, refusal: str) -> list[JsonObject]:
    """The events in which a message refuses."""
    place = {"item_id": item.frame.get("id"), "output_index": item.index, "content_index": position}
    part = refusal_part(refusal)
    return [
        {"type": "response.content_part.added", **place, "part": part | {"refusal": ""}},
        {"type": "response.refusal.delta", **place, "delta": refusal},
        {"type": "response.refusal.done", **place, "refusal": refusal},
        {"type": "response.content_part.done", **place, "part": part},
    ]
