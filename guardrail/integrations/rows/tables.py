"""Tables of which one column changes: every other column keeps its values, types and metadata."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa

from guardrail.errors import UsageError
from guardrail.integrations.rows.field_path import RowError
from guardrail.integrations.rows.formats import TableKind
from guardrail.integrations.rows.lines import dumps
from guardrail.integrations.rows.record import Position, Record, outcome_fields
from guardrail.integrations.rows.table_files import PORTION_ROWS, Portion, TableFile
from guardrail.integrations.rows.text_column import TextColumn, encodable
from guardrail.outcome import Outcome

__all__ = ["TableRows"]

OUTCOME = pa.struct(
    [
        ("action", pa.string()),
        ("degraded", pa.list_(pa.string())),
        ("scores", pa.map_(pa.string(), pa.float64())),
    ]
)


class TableRows:
    """Rows with the text in the column ``field``, or at a path in one.

    The footer of such a file comes last, so the table is written by ``assemble`` once all is judged; until
    then only what changes is kept, a JSON list per row: its number, its new text or null, and what goes
    ``into`` a column that receives what was done, if any should.
    """

    head = b""
    start = Position()

    def __init__(self, file: BinaryIO, *, field: str, into: str | None = None, kind: TableKind) -> None:
        self._table = TableFile(file, kind=kind)
        self._column = TextColumn.find(self._table.schema, field)
        self._into = into
        self.settings: dict[str, Any] = {"format": kind, "field": field, "into": into}
        if kind == "arrow" and pa.types.is_dictionary(self._column.kind(self._table.schema)):
            raise UsageError(f"column {field!r} is dictionary-encoded: cast it to string, or write Parquet")
        if into is not None and into in self._table.schema.names:
            raise UsageError(f"there is a column {into!r} already: choose another --into")

    def records(self, file: BinaryIO, start: Position) -> Iterator[Record]:
        """One record per row; positions count rows."""
        for portion in self._table.portions(start.offset):
            for index, text in enumerate(self._texts(portion.batch)):
                number = portion.first + index + 1
                end = Position(number, number)
                if isinstance(text, RowError):
                    yield Record(number, _as_json(portion.batch, index), end, error=str(text))
                else:
                    yield Record(number, text.encode(), end, text)

    def _texts(self, batch: pa.RecordBatch) -> Iterator[str | RowError]:
        """The texts of a batch, which may be a whole file, as Python's strings a portion at a time."""
        for first in range(0, batch.num_rows, PORTION_ROWS):
            yield from self._column.texts(batch.slice(first, PORTION_ROWS))

    def written(self, record: Record, outcome: Outcome) -> bytes:
        """What changes in the row; nothing if nothing does."""
        if not outcome.changed and self._into is None:
            return b""
        text = encodable(outcome.text) if outcome.changed else None
        fields = None if self._into is None else outcome_fields(outcome)
        return f"{dumps([record.number, text, fields])}\n".encode()

    def assemble(self, rows: BinaryIO, target: BinaryIO) -> None:
        """Writes the table with what was ``written``, and without the rows that could not be judged."""
        schema = self._table.schema
        if self._into is not None:
            schema = schema.append(pa.field(self._into, OUTCOME))
        changes = _Changes(rows)
        with self._table.writer(target, schema) as writer:
            for portion in self._table.portions():
                writer.write(self._changed(portion, changes, schema), group=portion.group)

    def _changed(self, portion: Portion, changes: _Changes, schema: pa.Schema) -> pa.RecordBatch:
        batch = portion.batch
        texts: dict[int, str] = {}
        added: list[dict[str, Any] | None] = [None] * batch.num_rows
        judged = [not isinstance(text, RowError) for text in self._texts(batch)]
        for number, text, fields in changes.before(portion.first + batch.num_rows + 1):
            index = number - portion.first - 1
            added[index] = fields
            if text is not None:
                texts[index] = text
        columns = self._column.replaced(batch, texts).columns
        if self._into is not None:
            columns = [*columns, pa.array(map(_pairs, added), OUTCOME)]
        changed = pa.RecordBatch.from_arrays(columns, schema=schema)
        return changed if all(judged) else _only(changed, judged)


class _Changes:
    """What was written of rows, in their order."""

    def __init__(self, rows: BinaryIO) -> None:
        self._rows = rows
        self._next = self._read()

    def before(self, number: int) -> Iterator[tuple[int, str | None, dict[str, Any] | None]]:
        """The changes of rows that come before the row of this number, each of them once."""
        while self._next is not None and self._next[0] < number:
            yield self._next
            self._next = self._read()

    def _read(self) -> tuple[int, str | None, dict[str, Any] | None] | None:
        line = self._rows.readline()
        return tuple(json.loads(line)) if line else None


def _only(batch: pa.RecordBatch, kept: Sequence[bool]) -> pa.RecordBatch:
    """The rows that are kept; joined from slices, because Arrow cannot filter all types."""
    slices, start = [batch.slice(0, 0)], 0
    for is_kept, run in itertools.groupby(kept):
        length = len(list(run))
        if is_kept:
            slices.append(batch.slice(start, length))
        start += length
    return pa.concat_batches(slices)


def _pairs(fields: dict[str, Any] | None) -> dict[str, Any] | None:
    """What was done, with the scores as Arrow's maps take them."""
    return None if fields is None else {**fields, "scores": list(fields["scores"].items())}


def _as_json(batch: pa.RecordBatch, index: int) -> bytes:
    """The row as JSON, whatever is in it."""
    row = batch.slice(index, 1)
    cells = {name: _cell(column) for name, column in zip(row.schema.names, row.columns, strict=True)}
    return json.dumps(cells, ensure_ascii=False, default=str).encode("utf-8", "replace")


def _cell(column: pa.Array) -> Any:
    try:
        return column[0].as_py()
    except UnicodeDecodeError:
        return "not UTF-8" if pa.types.is_nested(column.type) else repr(column.cast(pa.binary())[0].as_py())
    except ValueError:  # Python has no such value: a time in nanoseconds, the year 10000
        return f"a value of type {column.type}"
