"""Texts that detectors, rewriters and judges are measured on, read from a data folder, every row checked."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError

__all__ = ["Record", "data_folder", "dialogue_turns", "one_style", "read_records", "wikitext_sentences"]

Record = Mapping[str, Any]

APOSTROPHES = re.compile(r"['\u2019\u2018`]")
NOT_WORDS = re.compile(r"[\W_]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def data_folder(folder: str | Path | None) -> Path:
    """The given folder, else ``GUARDRAIL_DATA``; UsageError where neither names an existing folder."""
    chosen = folder or os.environ.get("GUARDRAIL_DATA")
    if not chosen:
        raise UsageError("no data folder: give it with --data or GUARDRAIL_DATA")
    if not Path(chosen).is_dir():
        raise UsageError(f"data folder {chosen} does not exist")
    return Path(chosen)


def read_records(path: str | Path, *, fields: Mapping[str, type | tuple[type, ...]]) -> list[Record]:
    """Every row of a JSON Lines file, each with the named fields of the named types.

    Raises UsageError for a missing or empty file and for the first bad row: file, row number from 1, field;
    never text.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no file {path}: is it the right data folder?")
    rows = [_record(line, number, path, fields) for number, line in _numbered_lines(path) if line.strip()]
    if not rows:
        raise UsageError(f"{path} holds no rows")
    return rows


def _numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    # By "\n" alone: JSON strings may hold other characters that str.splitlines cuts at.
    yield from enumerate(path.read_text(encoding="utf-8").split("\n"), 1)


def _record(line: str, number: int, path: Path, fields: Mapping[str, type | tuple[type, ...]]) -> Record:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        # `from None`: the decoder's exception carries the whole line, which is text.
        raise UsageError(f"{path} row {number}: not valid JSON at column {error.colno}") from None
    if not isinstance(row, dict):
        raise UsageError(f"{path} row {number}: expected an object, got {type(row).__name__}")
    for name, kind in fields.items():
        if name not in row:
            raise UsageError(f"{path} row {number}: missing field {name!r}")
        if not isinstance(row[name], kind):
            raise UsageError(f"{path} row {number}: field {name!r} must not be {type(row[name]).__name__}")
    return row


def one_style(text: str) -> str:
    """Lower-case words without punctuation: the same for texts that differ in style alone."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return NOT_WORDS.sub(" ", APOSTROPHES.sub("", folded)).strip()


def dialogue_turns(dialogue: str) -> list[str]:
    """What is said in each line of a DialogSum dialogue (``#Person1#: ...``), without the speaker."""
    return [
        said.strip() for _, colon, said in (line.partition(":") for line in dialogue.split("\n")) if colon
    ]


def wikitext_sentences(paragraphs: Sequence[str]) -> list[str]:
    """The sentences of WikiText-2 paragraphs of at least 20 characters, its marks (``@-@``, ``<unk>``)
    undone.

    Headings are left out.
    """
    sentences = []
    for paragraph in (line.strip() for line in paragraphs):
        if paragraph and not paragraph.startswith("="):
            plain = re.sub(r" @([-,.])@ ", r"\1", paragraph).replace("<unk>", "Unknown")
            sentences += [sentence for sentence in SENTENCE_END.split(plain) if len(sentence) >= 20]
    return sentences
