"""Training pairs and whole records of an audit in files, JSON Lines or Parquet, written as they are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from guardrail.audit.database import Database
from guardrail.errors import UsageError
from guardrail.integrations.audit.records import all_records
from guardrail.integrations.audit.review import pairs
from guardrail.integrations.rows.compression import compression_of
from guardrail.integrations.rows.formats import kind_of, require_pyarrow
from guardrail.integrations.rows.output import replacing

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ExportKind", "export_kind", "export_pairs", "export_records"]

ExportKind = Literal["jsonl", "parquet"]
ROWS_AT_ONCE = 2048
"""Of a row group; no more of an audit than these are in memory."""
Rows = Sequence[dict[str, Any]]


def export_kind(target: Path, given: ExportKind | None) -> ExportKind:
    """The given format, or the one that the name says, or JSON Lines; UsageError for any other."""
    kind = kind_of(target, given, default="jsonl")
    if kind not in ("jsonl", "parquet"):
        raise UsageError(f"an export is JSON Lines or Parquet, not {kind}: name it .jsonl or .parquet")
    if compression_of(target) is not None:
        raise UsageError(f"an export is not compressed: name it .jsonl or .parquet, not {target.name}")
    if kind == "parquet":
        require_pyarrow()
    return kind


def export_pairs(database: Database, target: Path, *, kind: ExportKind) -> int:
    """Writes the training pairs of an audit, and says how many; UsageError if the file is there already."""
    rows = ({"toxic": pair.toxic, "neutral": pair.neutral} for pair in pairs(database))
    return _export(rows, target, kind, _pair_schema)


def export_records(database: Database, target: Path, *, kind: ExportKind) -> int:
    """Writes every record with the last decision on it, the oldest number first, and says how many."""
    return _export(map(asdict, all_records(database)), target, kind, _record_schema)


def _export(
    rows: Iterator[dict[str, Any]], target: Path, kind: ExportKind, schema: Callable[[], pa.Schema]
) -> int:
    if str(target) != "-" and target.exists():
        raise UsageError(f"cannot write {target}: it exists already")
    count = 0
    with replacing(target) as file, _lines(file) if kind == "jsonl" else _parquet(file, schema()) as write:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            write(batch)
            count += len(batch)
    return count


@contextmanager
def _lines(file: BinaryIO) -> Iterator[Callable[[Rows], None]]:
    def write(batch: Rows) -> None:
        # Escaped: readers differ in what they take for the end of a line.
        file.writelines(f"{json.dumps(row, default=datetime.isoformat)}\n".encode("ascii") for row in batch)

    yield write


@contextmanager
def _parquet(file: BinaryIO, schema: pa.Schema) -> Iterator[Callable[[Rows], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    maps = [field.name for field in schema if pa.types.is_map(field.type)]
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:

        def write(batch: Rows) -> None:
            for row in batch:
                row.update({name: [*row[name].items()] for name in maps if row[name] is not None})
            writer.write_table(pa.Table.from_pylist(list(batch), schema))

        yield write


def _pair_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("toxic", pa.string()), ("neutral", pa.list_(pa.string()))])


def _record_schema() -> pa.Schema:
    import pyarrow as pa

    text, names, scores = pa.string(), pa.list_(pa.string()), pa.map_(pa.string(), pa.float64())
    moment = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            ("id", pa.int64()),
            ("at", moment),
            ("text_key", text),
            ("kind", text),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("hmac", text),
            ("action", text),
            ("scores", scores),
            ("scores_after", scores),
            ("similarity", pa.float64()),
            ("acceptable", pa.float64()),
            ("failed_checks", names),
            ("degraded", names),
            ("monitored", pa.bool_()),
            ("policy", text),
            ("policy_name", text),
            ("detector", text),
            ("lexicon", text),
            ("rewriter", text),
            ("before", text),
            ("after", text),
            ("decision", text),
            ("correction", text),
            ("reviewer", text),
            ("reviewed_at", moment),
            ("confirmed", names),
        ]
    )
