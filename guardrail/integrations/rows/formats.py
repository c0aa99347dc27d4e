"""Formats of files: inferred from their names, opened as each must be, refused with the cure if wrong."""

from __future__ import annotations

import json
import shutil
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, Literal

from guardrail.errors import MissingExtraError, UsageError
from guardrail.integrations.rows.compression import compression_of, name_inside

__all__ = [
    "TABLES",
    "Kind",
    "TableKind",
    "kind_of",
    "opened_source",
    "require_alike",
    "require_apart",
    "require_json_lines",
    "require_pyarrow",
    "require_utf8",
]

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
UTF_8 = "save it as UTF-8 (in a spreadsheet: CSV UTF-8), or convert it: iconv -f {0} -t UTF-8 IN > OUT"
CURES: Mapping[bytes, str] = {
    b"\xff\xfe\0\0": "UTF-32: " + UTF_8.format("UTF-32"),
    b"\0\0\xfe\xff": "UTF-32: " + UTF_8.format("UTF-32"),
    b"\xff\xfe": "UTF-16: " + UTF_8.format("UTF-16"),
    b"\xfe\xff": "UTF-16: " + UTF_8.format("UTF-16"),
    b"\x1f\x8b": "compressed with gzip: let its name end in .gz, or pipe it through gunzip -c",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: let its name end in .zst, or pipe it through zstd -dc",
    b"PAR1": "a Parquet file: let its name end in .parquet, or say --format parquet",
    b"ARROW1": "an Arrow file: let its name end in .arrow, or say --format arrow",
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: save the sheet as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or another office document: save the sheet as CSV UTF-8",
    b"BZh": "compressed with bzip2: pipe it through bzcat",
    b"\xfd7zXZ\0": "compressed with xz: pipe it through xzcat",
}
"""What a file is that begins so, and what to do about it."""


def kind_of(source: Path, given: Kind | None = None, *, default: Kind | None = None) -> Kind:
    """The given format, or what the name says; UsageError if it says nothing and there is no default."""
    kind = given or _named(source) or default
    if kind is None:
        name = "standard input" if str(source) == "-" else str(source)
        raise UsageError(f"cannot infer the format of {name}; pass --format jsonl, csv, parquet or arrow")
    return kind


def require_alike(source: Path, target: Path, kind: Kind) -> None:
    """UsageError if a table were to be written under another format's name, or compressed once more."""
    named = _named(target)
    if named not in (None, kind) and {named, kind} & set(TABLES):
        raise UsageError(f"OUT is of the same kind as IN, {kind}: {target} names another")
    for path in (source, target):
        if kind in TABLES and compression_of(path) is not None:
            raise UsageError(f"{path}: a table's columns are compressed in it; its file must not be, too")


def require_apart(source: Path, target: Path) -> None:
    """UsageError if both are the same file."""
    if str(source) != "-" and target.exists() and source.samefile(target):
        raise UsageError(f"IN and OUT are the same file, {source}: it would be overwritten while it is read")


def require_pyarrow() -> None:
    """MissingExtraError if tables cannot be read here."""
    try:
        import pyarrow as pyarrow
    except ImportError as error:
        raise MissingExtraError(feature="a Parquet or Arrow file", extra="parquet") from error


def require_utf8(beginning: bytes) -> None:
    """UsageError, which names the cure, if a file that begins like this is not text in UTF-8."""
    for magic, cure in CURES.items():
        if beginning.startswith(magic):
            raise UsageError(f"the input is {cure}")
    if b"\0" in beginning[:2]:  # a Latin letter in UTF-16 that has no byte order mark
        name = "UTF-16BE" if beginning.startswith(b"\0") else "UTF-16LE"
        raise UsageError(f"the input is UTF-16, or not text: {UTF_8.format(name)}")


def require_json_lines(line: bytes) -> None:
    """UsageError, which names the cure, if this first line of a file cannot be that of JSON Lines."""
    require_utf8(line)
    content = line.removeprefix(BOM_UTF8).strip()
    if content == b"{":
        raise UsageError("the input is JSON over several lines, not JSON Lines: jq -c . IN > OUT makes it so")
    if content.startswith(b"[") and not _is_row(content):
        raise UsageError("the input is a JSON array, not JSON Lines: jq -c '.[]' IN > OUT makes it so")


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


def _is_row(content: bytes) -> bool:
    """True for a list without objects in it, alone on its line: a bad row, and others may follow."""
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return not any(isinstance(element, dict) for element in row)
