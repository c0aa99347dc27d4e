"""The shapes in which chat models answer, whatever holds them: dict, dataclass or pydantic model.

message   ``role`` and ``content`` (OpenAI and others), or ``type``, ``content`` and ``additional_kwargs``
          (LangChain): the content is prose, as a str or as a list of str and blocks
chunk     ``delta``, or ``choices`` with a ``delta``: a piece of an answer, whose words may be cut in two
block     ``type`` (LlamaIndex: ``block_type``) and the prose under a name that depends on it:
          ``{"type": "text", "text": ...}``
choice    ``finish_reason`` and a ``message`` or a ``text``: the text is prose
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from guardrail.structured.nodes import Kind
from guardrail.structured.records import elements_of, fields_of

__all__ = ["CALLS", "decoded_json", "kind_of", "prose_field", "spelled"]

BLOCKS = {
    "text": "text",
    "text-plain": "text",
    "input_text": "text",
    "output_text": "text",
    "summary_text": "text",
    "reasoning_text": "text",
    "reasoning": "reasoning",
    "refusal": "refusal",
}
"""Types of blocks, and the field that holds their prose."""
CALLS = ("tool_calls", "invalid_tool_calls", "tool_call_chunks", "function_call", "additional_kwargs")
"""Fields of messages that hold calls of tools; providers keep a second copy in ``additional_kwargs``."""

NAMES = ("id", "index", "object", "role", "type")
"""Fields of chunks that are said in one piece."""


def kind_of(fields: Mapping[Any, Any]) -> Kind:
    """The shape of something with these fields."""
    if "content" in fields and ("role" in fields or ("type" in fields and "additional_kwargs" in fields)):
        return Kind.MESSAGE
    if "finish_reason" in fields and ("message" in fields or "text" in fields):
        return Kind.CHOICE
    return Kind.BLOCK if _block_field(fields) else Kind.PLAIN


def prose_field(kind: Kind, fields: Mapping[Any, Any]) -> str | None:
    """The name of the field that is prose in a thing of this shape."""
    if kind is Kind.BLOCK:
        return _block_field(fields)
    return {Kind.MESSAGE: "content", Kind.CHOICE: "text"}.get(kind)


def _block_field(fields: Mapping[Any, Any]) -> str | None:
    kind = fields.get("type", fields.get("block_type"))
    name = BLOCKS.get(kind) if isinstance(kind, str) else None
    return name if name is not None and isinstance(fields.get(name), str) else None


def decoded_json(text: str) -> list[Any] | None:
    """What a string holds that is a JSON object or array; None for any other string.

    An object becomes a list of its pairs, so that a key that is there twice is read twice.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None


def spelled(elements: Sequence[Any]) -> list[str]:
    """The texts that chunks in a list spell together, each longer than any piece of it."""
    pieces: dict[tuple[Any, ...], list[str]] = {}
    for element in elements:
        fields = {} if isinstance(element, str) else fields_of(element) or {}
        _collect(fields.get("delta"), (fields.get("index"),), pieces)
        for position, choice in enumerate(elements_of(fields.get("choices")) or ()):
            inside = fields_of(choice) or {}
            place = ("choices", inside.get("index", position))
            _collect(inside.get("delta"), place, pieces)
            if not inside.get("finish_reason"):  # else it is whole, or its end
                _collect(inside.get("text"), place, pieces)
    return ["".join(found) for found in pieces.values() if len(found) > 1]


def _collect(part: Any, place: tuple[Any, ...], into: dict[tuple[Any, ...], list[str]]) -> None:
    """The strings of a part by their place; those that name something are not cut in two."""
    if isinstance(part, str):
        if part:
            into.setdefault(place, []).append(part)
        return
    for position, element in enumerate(elements_of(part) or ()):
        _collect(element, (*place, (fields_of(element) or {}).get("index", position)), into)
    for name, inner in (fields_of(part) or {}).items():
        if name not in NAMES:
            _collect(inner, (*place, name), into)
