"""Puts moderated prose back into the value that it was found in, and refuses what cannot be shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guardrail.errors import BlockedError
from guardrail.outcome import Action, Outcome
from guardrail.policy import Policy
from guardrail.structured.nodes import Branch, Dropped, Kind, Node, Text, texts_in
from guardrail.structured.records import fields_of, with_parts
from guardrail.structured.shapes import CALLS, prose_field

__all__ = ["Rebuilding", "as_before"]

ADVICE = "its text may not be changed there: declare its place with paths= to have it rewritten"


def as_before(value: str, text: str) -> str:
    """The same object where nothing changed; else the new text in the type that the value had."""
    if text == value:
        return value
    return text if type(value) is str else type(value)(text)


@dataclass(frozen=True, slots=True)
class Rebuilding:
    """Rebuilds a value from the outcomes of its passages; unchanged parts are the same objects.

    In a message the refusal takes the place of what was blocked, and calls of tools are dropped. Elsewhere
    nothing can honestly stand for a flagged string that is not prose: BlockedError.

    ``outcomes`` has one for each passage of the reading, None for a passage known to be clean.
    """

    policy: Policy
    outcomes: Sequence[Outcome | None]

    def value(self, node: Node) -> Any:
        """The value of a node as it may be shown."""
        if isinstance(node, Dropped):
            return None
        if isinstance(node, Text):
            return self._text(node)
        for key in node.read_only:
            self.value(key)  # raises if one is blocked
        if node.kind is Kind.MESSAGE and self.is_blocked(node):
            changes = self._refused(node)
        else:
            changes = {slot: self.value(part) for slot, part in node.parts}
        if node.kind is Kind.CHOICE and any(
            self.is_blocked(part) for slot, part in node.parts if slot in ("message", "text")
        ):
            changes["finish_reason"] = "content_filter"
        before = _held(node.value) if changes else {}
        changes = {slot: part for slot, part in changes.items() if part is not before[slot]}
        return with_parts(node.value, changes) if changes else node.value

    def is_blocked(self, node: Node) -> bool:
        """True if any string under a node was blocked."""
        found = (self.outcomes[text.index] for text in texts_in(node))
        return any(outcome is not None and outcome.action is Action.BLOCKED for outcome in found)

    def _text(self, node: Text) -> str:
        outcome = self.outcomes[node.index]
        if outcome is None:
            return node.value
        if node.prose:
            return as_before(node.value, outcome.text)
        if outcome.action is Action.BLOCKED:
            raise BlockedError(outcome, advice=ADVICE)
        return node.value

    def _refused(self, node: Branch) -> dict[Any, Any]:
        """The changed fields of a message in which something was blocked."""
        before = _held(node.value)
        changes: dict[Any, Any] = {name: _empty(before[name]) for name in CALLS if before.get(name)}
        for slot, part in node.parts:
            if slot not in changes and slot != "content":
                changes[slot] = _empty(before[slot]) if self.is_blocked(part) else self.value(part)
        content = dict(node.parts).get("content")
        if isinstance(before["content"], list):
            changes["content"] = self._refused_blocks(before["content"], content)
        else:
            changes["content"] = self._refused_text(content)
        return changes

    def _refused_text(self, content: Node | None) -> str:
        """The moderated text with the refusal in it, or after it if something else was blocked."""
        refusal = self.policy.refusal
        if not isinstance(content, Text) or not content.prose or self.policy.block == "whole":
            return refusal
        text = self._text(content)
        if self.is_blocked(content):
            return text
        return f"{text}\n\n{refusal}" if text else refusal

    def _refused_blocks(self, blocks: Sequence[Any], content: Node | None) -> list[Any]:
        """The blocks of prose up to the refusal; all others are dropped."""
        parts = dict(content.parts) if isinstance(content, Branch) else {}
        prose = [part for part in parts.values() if _prose_of(part) is not None]
        kept: list[Any] = []
        for part in prose if self.policy.block != "whole" else ():
            text = _prose_of(part)
            assert text is not None
            others = [found for found in texts_in(part) if found is not text]
            if any(self.is_blocked(other) for other in others):
                continue  # a citation, say: the block cannot be shown whole
            kept.append(self.value(part))
            if self.is_blocked(text):
                return kept
        return [*kept, _refusal_block(prose, self.policy.refusal)]


def _held(value: Any) -> Mapping[Any, Any]:
    """The parts of a value by position or name."""
    fields = fields_of(value)
    return dict(enumerate(value)) if fields is None else fields


def _empty(part: Any) -> Any:
    return type(part)() if isinstance(part, (list, dict)) else None


def _prose_of(part: Node) -> Text | None:
    """The prose of an element of a message's content."""
    if isinstance(part, Text):
        return part if part.prose else None
    if isinstance(part, Branch) and part.kind is Kind.BLOCK:
        name = prose_field(part.kind, _held(part.value))
        text = dict(part.parts).get(name)
        return text if isinstance(text, Text) and text.prose else None
    return None


def _refusal_block(prose: Sequence[Node], refusal: str) -> Any:
    """A block of the refusal, of the same class as the message's other blocks of prose."""
    for part in prose:
        if isinstance(part, Branch) and not isinstance(part.value, dict):
            return with_parts(part.value, {prose_field(part.kind, _held(part.value)): refusal})
        if isinstance(part, Branch) and part.value.get("type") not in (None, "reasoning"):
            return {"type": part.value["type"], str(prose_field(part.kind, part.value)): refusal}
    return {"type": "text", "text": refusal}
