"""Where a row has its text: in a field, or further inside, such as ``comments.0.body``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["RowError", "index_of", "steps_to", "text_of"]

_NOTHING = object()
DIGITS = 9
"""No list is longer; and Python reads no number of thousands of digits."""


class RowError(Exception):
    """Why a row cannot be judged, in words that quote nothing of its text."""


def index_of(step: str) -> int | None:
    """The element of a list that a step of a path names, from 0; None if it names none."""
    return int(step) if step.isascii() and step.isdigit() and len(step) <= DIGITS else None


def steps_to(row: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """The steps from a row to its text: the field's whole name, or the names and indexes between its dots.

    RowError if the row has neither; if it has both, because one of them would not be judged.
    """
    steps = tuple(field.split("."))
    inside = len(steps) > 1 and _at(row, steps) is not _NOTHING
    if field in row:
        if inside:
            raise RowError(f"{field!r} is there 2 times: as a field and as a path")
        return (field,)
    if inside:
        return steps
    raise RowError(f"no field {field!r}: name the text's field with --field")


def text_of(row: Mapping[str, Any], field: str) -> str:
    """The text in a field or at a path; RowError if there is none."""
    text = _at(row, steps_to(row, field))
    if not isinstance(text, str):
        raise RowError(f"field {field!r} must be a string, got {type(text).__name__}")
    return text


def _at(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        index = index_of(step)
        if isinstance(value, Mapping) and step in value:
            value = value[step]
        elif isinstance(value, list) and index is not None and index < len(value):
            value = value[index]
        else:
            return _NOTHING
    return value
