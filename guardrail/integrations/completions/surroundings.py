"""What surrounds the text of an answer: ids, settings, and words of the client and of third parties."""

from __future__ import annotations

import re
from typing import Any

from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.completions.sanitize import new_id, strings_in
from guardrail.integrations.strict_json import JsonObject, dumps

__all__ = ["Surroundings"]

OPAQUE = frozenset(
    {"data", "encrypted_content", "encrypted_stdout", "partial_image_b64", "result", "signature"}
)
"""Keys of what nobody reads: encrypted text, signatures, pictures."""
_PACKED = re.compile(r"[A-Za-z0-9+/=_.-]{200,}", re.ASCII)


class Surroundings:
    """Judges what is passed on as it came. ``asked`` is the request: an answer may repeat what it said."""

    def __init__(self, moderator: Moderator, *, asked: object = None) -> None:
        self._moderator = moderator
        self._said = frozenset(strings_in(asked))
        self._ids: dict[str, str] = {}
        self._judged: dict[str, bool] = {}

    async def id_of(self, value: object, prefix: str) -> Any:
        """The id, or one of ours for one that is toxic: the same each time."""
        if not isinstance(value, str):
            return value if isinstance(value, (int, float)) else None
        if value not in self._ids:
            clean = value in await self._moderator.identifiers(value)
            self._ids[value] = value if clean else new_id(prefix)
        return self._ids[value]

    async def is_clean(self, value: object, *, repeats: bool = False) -> bool:
        """False if a value holds something toxic; what ``repeats`` the client's own words does not."""
        strings = [text for text in self.strings(value) if not (repeats and text in self._said)]
        if not strings:
            return True
        key = dumps(strings)
        if key not in self._judged:
            self._judged[key] = await self._moderator.is_harmless(strings)
        return self._judged[key]

    async def fields(
        self, part: JsonObject, replaced: JsonObject | None = None, *, repeats: bool = False
    ) -> JsonObject:
        """The fields of an object in their order: those that are replaced, and the others as they came.

        In place of a toxic value stands null or an empty list; a field with a toxic name is left out.
        """
        replaced = replaced or {}
        kept = {name: value for name, value in part.items() if name not in replaced}
        if not await self.is_clean(kept, repeats=repeats):
            kept = {
                name: value if await self.is_clean(value, repeats=repeats) else _nothing(value)
                for name, value in kept.items()
                if await self.is_clean(name)
            }
        fields = kept | replaced
        return {name: fields[name] for name in part if name in fields}

    def strings(self, value: object) -> list[str]:
        """The strings of a value that are to be judged: those that people can read."""
        return list(strings_in(_readable(value)))


def _nothing(value: object) -> list[object] | None:
    return [] if isinstance(value, list) else None


def _readable(value: object) -> Any:
    """The value without what nobody reads."""
    if isinstance(value, dict):
        return {key: _readable(inner) for key, inner in value.items() if not _is_opaque(key, inner)}
    return [_readable(inner) for inner in value] if isinstance(value, list) else value


def _is_opaque(key: str, value: object) -> bool:
    return key in OPAQUE and isinstance(value, str) and _PACKED.fullmatch(value) is not None
