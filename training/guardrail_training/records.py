"""Rows of JSON Lines files in a data folder, every one checked, for training and evaluation alike."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError

__all__ = ["Record", "TrainingRowError", "data_folder", "read_records", "required_folder"]

Kinds = Mapping[str, type | tuple[type, ...]]


class TrainingRowError(UsageError):
    """A row of a data file cannot be used; the message names the file and the row, never the text."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a file; ``number`` counts its lines from 1."""

    number: int
    content: Mapping[str, Any] = field(repr=False)

    def __getitem__(self, name: str) -> Any:
        return self.content[name]


def data_folder(folder: str | Path | None) -> Path | None:
    """The folder that the data is read from: the given one, else ``GUARDRAIL_DATA``; None means the hub."""
    chosen = folder or os.environ.get("GUARDRAIL_DATA")
    return Path(chosen) if chosen else None


def required_folder(folder: str | Path | None) -> Path:
    """The given folder, else ``GUARDRAIL_DATA``; UsageError where neither names an existing folder."""
    chosen = data_folder(folder)
    if chosen is None:
        raise UsageError("no data folder: give it with --data or GUARDRAIL_DATA")
    if not chosen.is_dir():
        raise UsageError(f"data folder {chosen} does not exist")
    return chosen


def read_records(path: str | Path, *, fields: Kinds | None = None) -> list[Record]:
    """Every row of a JSON Lines file, each with the named fields of the named types; blank lines are skipped.

    Raises TrainingRowError for a missing or empty file and for the first bad row: file, row number, field;
    never text.
    """
    path = Path(path)
    if not path.is_file():
        raise TrainingRowError(f"{path} not found: give its folder with --data or GUARDRAIL_DATA")
    # By "\n" alone: JSON strings may hold other characters that str.splitlines cuts at.
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    records = [_record(line, number, path, fields or {}) for number, line in lines if line.strip()]
    if not records:
        raise TrainingRowError(f"{path} holds no rows")
    return records


def _record(line: str, number: int, path: Path, fields: Kinds) -> Record:
    try:
        content = json.loads(line)
    except json.JSONDecodeError as error:
        # `from None`: the decoder's exception carries the whole line, which is text.
        raise TrainingRowError(f"{path} row {number}: not valid JSON at column {error.colno}") from None
    if not isinstance(content, dict):
        raise TrainingRowError(f"{path} row {number}: expected an object, got {type(content).__name__}")
    for name, kind in fields.items():
        if name not in content:
            raise TrainingRowError(f"{path} row {number}: missing field {name!r}")
        if not isinstance(content[name], kind):
            found = type(content[name]).__name__
            raise TrainingRowError(f"{path} row {number}: field {name!r} must not be {found}")
    return Record(number, content)
