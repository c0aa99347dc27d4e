"""Parquet and Arrow files, read and written a portion at a time: as much as fits, however large they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from guardrail.errors import UsageError
from guardrail.integrations.rows.formats import TableKind

__all__ = ["PORTION_ROWS", "Portion", "TableFile", "TableWriter"]

PORTION_ROWS = 4096
PORTION_BYTES = 1 << 24
GROUP_BYTES = 1 << 27
"""Of a row group in memory; a larger one is written as several."""
READ_BYTES = 1 << 20
CODECS = {"SNAPPY", "GZIP", "BROTLI", "LZ4", "ZSTD"}


@dataclass(frozen=True, slots=True)
class Portion:
    """Rows of a table: how many stand before them, and the number of their row group or record batch."""

    first: int
    group: int
    batch: pa.RecordBatch


class TableWriter(Protocol):
    """Takes a table's rows in order."""

    def write(self, batch: pa.RecordBatch, *, group: int) -> None:
        """Adds rows; those of one group stay together."""
        ...


class TableFile:
    """A table in a file that can be sought in. UsageError if it is not such a table, or damaged."""

    def __init__(self, file: BinaryIO, *, kind: TableKind) -> None:
        self.kind = kind
        with _understood(kind):
            self._table = _Parquet(file) if kind == "parquet" else _Arrow(file)
        self.schema = self._table.schema
        self.rows = self._table.rows
        """How many there are; None if that is not known before the end."""

    def portions(self, start: int = 0, end: int | None = None) -> Iterator[Portion]:
        """The rows from the row ``start`` on, up to the row ``end``."""
        with _understood(self.kind):
            for portion in self._table.portions(start):
                if end is not None and portion.first >= end:
                    return
                skipped = max(0, start - portion.first)
                kept = None if end is None else end - portion.first - skipped
                if skipped < portion.batch.num_rows:
                    batch = portion.batch.slice(skipped, kept)
                    yield Portion(portion.first + skipped, portion.group, batch)

    @contextmanager
    def writer(self, file: BinaryIO, schema: pa.Schema) -> Iterator[TableWriter]:
        """Writes a table of the same kind, with the same compression and groups; complete at the end."""
        with self._table.writer(file, schema) as writer:
            yield writer


class _Parquet:
    def __init__(self, file: BinaryIO) -> None:
        # Without a buffer, whole columns of a row group would be read; with read-ahead, whole row groups.
        options = {"buffer_size": READ_BYTES, "pre_buffer": False}
        self._file = pq.ParquetFile(file, **options)
        if b"ARROW:schema" not in (self._file.metadata.metadata or {}):
            # Old timestamps (INT96) of other writers reach beyond what nanoseconds can express.
            self._file = pq.ParquetFile(file, coerce_int96_timestamp_unit="us", **options)
        self.schema = self._file.schema_arrow
        self.rows: int | None = self._file.metadata.num_rows

    def portions(self, start: int) -> Iterator[Portion]:
        first = 0
        for group in range(self._file.metadata.num_row_groups):
            about = self._file.metadata.row_group(group)
            if first + about.num_rows > start:
                size = about.total_byte_size // max(1, about.num_rows) + 1
                rows = max(1, min(PORTION_ROWS, PORTION_BYTES // size))
                at = first
                for batch in self._file.iter_batches(rows, row_groups=[group], use_threads=False):
                    yield Portion(at, group, batch)
                    at += batch.num_rows
            first += about.num_rows

    @contextmanager
    def writer(self, file: BinaryIO, schema: pa.Schema) -> Iterator[TableWriter]:
        columns = [column for group in self._groups()[:1] for column in group]
        codecs = {column.path_in_schema: _codec(column.compression) for column in columns}
        with pq.ParquetWriter(
            file,
            schema,
            compression=codecs if len(set(codecs.values())) > 1 else next(iter(codecs.values()), "snappy"),
            use_compliant_nested_type=not any(".list.item" in path for path in codecs),
        ) as opened:
            writer = _ParquetGroups(opened, schema)
            yield writer
            writer.flush()

    def _groups(self) -> list[list[pq.ColumnChunkMetaData]]:
        metadata = self._file.metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        return [[group.column(column) for column in range(group.num_columns)] for group in groups]


class _ParquetGroups:
    """Gathers the rows of a row group."""

    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._batches: list[pa.RecordBatch] = []
        self._group = self._size = 0

    def write(self, batch: pa.RecordBatch, *, group: int) -> None:
        if group != self._group or self._size > GROUP_BYTES:
            self.flush()
        self._group = group
        self._size += batch.nbytes
        self._batches.append(batch)

    def flush(self) -> None:
        table = pa.Table.from_batches(self._batches, self._schema).unify_dictionaries()
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)
        self._batches, self._size = [], 0


class _Arrow:
    """Arrow's file format, also called Feather, and its stream format: which one, the beginning says."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        file.seek(0)
        self._is_file = file.read(6) == b"ARROW1"
        self.schema = self._opened().schema
        self.rows: int | None = None

    def _opened(self) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
        self._file.seek(0)
        return pa.ipc.open_file(self._file) if self._is_file else pa.ipc.open_stream(self._file)

    def portions(self, start: int) -> Iterator[Portion]:
        first, reader = 0, self._opened()
        batches = map(reader.get_batch, range(reader.num_record_batches)) if self._is_file else reader
        for group, batch in enumerate(batches):
            yield Portion(first, group, batch)
            first += batch.num_rows

    @contextmanager
    def writer(self, file: BinaryIO, schema: pa.Schema) -> Iterator[TableWriter]:
        new = pa.ipc.new_file if self._is_file else pa.ipc.new_stream
        with new(file, schema) as opened:
            yield _ArrowBatches(opened)


class _ArrowBatches:
    def __init__(self, writer: pa.RecordBatchFileWriter | pa.RecordBatchStreamWriter) -> None:
        self._writer = writer

    def write(self, batch: pa.RecordBatch, *, group: int) -> None:
        self._writer.write_batch(batch)


def _codec(name: str) -> str:
    if name == "UNCOMPRESSED":
        return "NONE"
    return name if name in CODECS else "SNAPPY"


@contextmanager
def _understood(kind: TableKind) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, EOFError) as error:
        name = kind.capitalize()
        raise UsageError(
            f"the input cannot be read as {name}: it is truncated, damaged, encrypted or not {name}"
        ) from error
