"""What a field of text holds: a string, or a list of parts such as text, reasoning and images."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.sanitize import strings_in_json
from guardrail.integrations.strict_json import JsonObject, MalformedError

__all__ = ["ContentPart", "is_clean_document", "is_readable", "merged", "parts_in"]

NON_PROSE_KEYS = frozenset(
    {
        *("call_id", "data", "detail", "encrypted_content", "file_id", "format", "id", "index", "lang"),
        *("language", "media_type", "mime_type", "object", "role", "signature", "status", "type", "url"),
    }
)
"""Keys of strings that are not prose; they are judged as they are and never rewritten. Any other string is
prose, however the provider names its key, so that no text escapes by being spread over several deltas."""

MAX_DEPTH = 16
Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class ContentPart:
    """A string, or one part of a list: ``frame`` is the field's value with that part alone, without its
    texts, and ``places`` say where in it they stand.
    """

    frame: Any = field(repr=False)
    places: tuple[Place, ...]
    texts: tuple[str, ...] = field(repr=False)

    @property
    def is_listed(self) -> bool:
        """True for a part of a list, false for a string."""
        return isinstance(self.frame, list)

    def fits(self, other: ContentPart) -> bool:
        """True if the two differ in their texts alone, so that a client puts these together."""
        return self.places == other.places and self.frame == other.frame

    def filled(self, texts: Sequence[str]) -> Any:
        """The value with these texts in their places."""
        value = deepcopy(self.frame)
        for place, text in zip(self.places, texts, strict=True):
            value = _put(value, place, text)
        return value

    def one(self, number: int) -> ContentPart:
        """The part with the text of that number alone."""
        return replace(self, places=(self.places[number],), texts=(self.texts[number],))


def parts_in(source: JsonObject, name: str) -> list[ContentPart]:
    """The parts of a field, none if it is empty; MalformedError if it is not a text."""
    value = source.get(name)
    if value is None or value is False or value == {}:
        return []
    if type(value) is int:
        value = str(value)  # a number that an upstream took for JSON
    if isinstance(value, str):
        return [ContentPart("", ((),), (value,))] if value else []
    if not _is_list_of_parts(value):
        raise MalformedError(f"{name} is neither a string nor a list of parts")
    return [_read([item]) for item in value if item is not None]


def is_readable(value: object) -> bool:
    """True for a string or a list of parts."""
    return isinstance(value, str) or _is_list_of_parts(value)


def merged(parts: Sequence[ContentPart]) -> list[ContentPart]:
    """The parts with neighbours that fit put together, as fragments of one text."""
    found: list[ContentPart] = []
    for part in parts:
        if found and part.fits(found[-1]):
            texts = tuple(one + other for one, other in zip(found[-1].texts, part.texts, strict=True))
            found[-1] = replace(part, texts=texts)
        else:
            found.append(part)
    return found


async def is_clean_document(parts: Sequence[ContentPart], moderator: Moderator) -> bool:
    """False if JSON that was asked for, as a reader decodes it, or what surrounds it is toxic."""
    texts = [text for part in parts for text in part.texts]
    whole = ["".join(texts)] if len(texts) > 1 else []
    strings = [string for text in (*texts, *whole) for string in strings_in_json(text)]
    frames = [part.frame for part in parts if part.is_listed]
    return await moderator.is_clean(strings) and await moderator.is_harmless(frames)


def _is_list_of_parts(value: object) -> TypeGuard[list[JsonObject | None]]:
    return isinstance(value, list) and all(item is None or isinstance(item, dict) for item in value)


def _read(value: list[Any]) -> ContentPart:
    places: list[Place] = []
    texts: list[str] = []

    def framed(item: Any, place: Place, *, prose: bool) -> Any:
        if len(place) > MAX_DEPTH:
            raise MalformedError("content is nested too deeply")
        if isinstance(item, dict):
            return {
                key: framed(inner, (*place, key), prose=key not in NON_PROSE_KEYS)
                for key, inner in item.items()
            }
        if isinstance(item, list):
            return [framed(inner, (*place, at), prose=prose) for at, inner in enumerate(item)]
        if not (prose and isinstance(item, str) and item):
            return item
        places.append(place)
        texts.append(item)
        return ""

    return ContentPart(framed(value, (), prose=True), tuple(places), tuple(texts))


def _put(value: Any, place: Place, text: str) -> Any:
    if not place:
        return text
    value[place[0]] = _put(value[place[0]], place[1:], text)
    return value
