"""Kinds of bulk files: told by the ends of their names, opened as each kind must be."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Literal

from guardrail.errors import MissingExtraError, UsageError
from guardrail.integrations.rows.compression import compression_of, name_inside

__all__ = ["TABLES", "Kind", "TableKind", "kind_of", "opened_source", "require_alike", "require_pyarrow"]

TableKind = Literal["parquet", "arrow"]
Kind = Literal["jsonl", "csv"] | TableKind
TABLES = ("parquet", "arrow")
SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}


def kind_of(source: Path, said: Kind | None = None, *, default: Kind | None = None) -> Kind:
    """What was said, or what the name says; UsageError if it says nothing and there is no default."""
    kind = said or _named(source) or default
    if kind is None:
        raise UsageError(
            f"what kind of file {source} is cannot be seen: say --format jsonl, csv, parquet or arrow"
        )
    return kind


def require_alike(source: Path, target: Path, kind: Kind) -> None:
    """UsageError if a table were to be written under another kind's name, or compressed once more."""
    named = _named(target)
    if named not in (None, kind) and {named, kind} & set(TABLES):
        raise UsageError(f"OUT is of the same kind as IN, {kind}: {target} names another")
    for path in (source, target):
        if kind in TABLES and compression_of(path) is not None:
            raise UsageError(f"{path}: a table's columns are compressed in it; its file must not be, too")


def require_pyarrow() -> None:
    """MissingExtraError if tables cannot be read here."""
    try:
        import pyarrow as pyarrow
    except ImportError as error:
        raise MissingExtraError(feature="a Parquet or Arrow file", extra="parquet") from error


@contextmanager
def opened_source(source: Path, kind: Kind) -> Iterator[BinaryIO]:
    """The input as it is on disk; a table from standard input is kept in a temporary file first.

    UsageError if it cannot be read.
    """
    if str(source) != "-":
        try:
            opened = source.open("rb")
        except OSError as error:
            raise UsageError(f"cannot read {source}: {error.strerror}") from error
        with opened as file:
            yield file
    elif kind in TABLES:
        with TemporaryFile() as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.seek(0)
            yield file
    else:
        yield sys.stdin.buffer


def _named(path: Path) -> Kind | None:
    return SUFFIXES.get(name_inside(path).suffix.lower())
