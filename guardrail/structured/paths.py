"""Declared paths: which strings of a value are prose, such as ``choices[].message.content``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from guardrail.errors import UsageError

__all__ = ["ELEMENTS", "Path", "parse_paths"]

ELEMENTS = "[]"
"""The step from a list, tuple or set to each of its elements."""
STEP = r"\[\]|[^.\[\]]+"
FORM = re.compile(rf"(?:{STEP})(?:\[\]|\.[^.\[\]]+)*")


@dataclass(frozen=True, slots=True)
class Path:
    """One declared path. ``steps`` are names of fields or keys, and ELEMENTS; ``spelled`` is as declared."""

    spelled: str
    steps: tuple[str, ...]


def parse_paths(declared: Iterable[str]) -> tuple[Path, ...]:
    """The declared paths, taken apart. Raises UsageError for one that is not of the right form.

    Names are separated by dots, and ``[]`` stands for every element of a list: ``answer``, ``items[].text``,
    ``[].text`` if the value itself is a list.
    """
    if isinstance(declared, str):
        raise UsageError(f"paths must be a list of str, got one str: write paths=[{declared!r}]")
    return tuple(Path(spelled, _steps(spelled)) for spelled in declared)


def _steps(spelled: object) -> tuple[str, ...]:
    if not isinstance(spelled, str):
        raise UsageError(f"a path must be a str, got {type(spelled).__name__}")
    if not FORM.fullmatch(spelled):
        raise UsageError(f"path {spelled!r} is malformed; write it like 'answer' or 'items[].text'")
    return tuple(re.findall(STEP, spelled))
