"""Tables, Parquet and Arrow, of which one column changes: all others keep values, types and metadata."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from guardrail.errors import UsageError
from guardrail.integrations.rows.formats import TableKind
from guardrail.integrations.rows.record import (
    Columns,
    FileRow,
    Position,
    Result,
    RowError,
    RowToJudge,
    index_of,
    to_json,
)
from guardrail.integrations.rows.table_files import PORTION_ROWS, Portion, TableFile

__all__ = ["TableRows", "TextColumn", "changed", "schema_with"]

SHOWN_COLUMNS = 20
ADDED_TYPES = {
    "action": pa.string(),
    "degraded": pa.list_(pa.string()),
    "scores": pa.map_(pa.string(), pa.float64()),
    "flagged": pa.bool_(),
    "spans": pa.list_(pa.list_(pa.int64())),
    "unsupported": pa.bool_(),
}
Text = str | RowError


class TableRows:
    """Rows with the text in a column, or at a path in one.

    The footer of such a file comes last, so the table is written by ``assemble`` once all is judged; until
    then only what changes is kept, a JSON list per row: its number, its new text or null, and the fields that
    are added, if any are; the number alone of a row that is not in the output.
    """

    head = b""
    start = Position()
    delimiter: str | None = None

    def __init__(self, file: BinaryIO, columns: Columns | None = None, *, kind: TableKind) -> None:
        self._table = TableFile(file, kind=kind)
        self._columns = columns or Columns()
        if columns is None:  # all of a row is read, and nothing written
            return
        self._column = TextColumn.find(self._table.schema, columns.text)
        if kind == "arrow" and pa.types.is_dictionary(self._column.kind(self._table.schema)):
            raise UsageError(
                f"column {columns.text!r} is dictionary-encoded: cast it to string, or write Parquet"
            )
        schema_with(self._table.schema, columns)

    def rows(self, file: BinaryIO, start: Position) -> Iterator[FileRow]:
        """All cells of every row, as Python has them, from ``start`` on; positions count rows."""
        for portion in self._table.portions(start.offset):
            for index in range(portion.batch.num_rows):
                number = portion.first + index + 1
                yield FileRow(number, b"", Position(number, number), _cells(portion.batch, index))

    def records(self, file: BinaryIO, start: Position) -> Iterator[RowToJudge]:
        """One record per row; positions count rows."""
        for portion in self._table.portions(start.offset):
            for index, text in enumerate(self._texts(portion.batch)):
                number = portion.first + index + 1
                end = Position(number, number)
                if isinstance(text, RowError):
                    yield RowToJudge(number, _as_json(portion.batch, index), end, error=str(text))
                else:
                    yield RowToJudge(number, text.encode(), end, text)

    def _texts(self, batch: pa.RecordBatch) -> Iterator[Text]:
        """The texts of a batch, which may be a whole file, as Python's strings a portion at a time."""
        for first in range(0, batch.num_rows, PORTION_ROWS):
            yield from self._column.texts(batch.slice(first, PORTION_ROWS))

    def written(self, record: RowToJudge, result: Result) -> bytes:
        """What changes in the row; nothing if nothing does."""
        if result.text is None and self._columns.into is None:
            return b""
        text = None if result.text is None else _encodable(result.text)
        added = None if self._columns.into is None else result.added
        return f"{to_json([record.number, text, added])}\n".encode()

    def set_aside(self, record: RowToJudge) -> bytes:
        """Says that the row is not in the output."""
        return f"[{record.number}]\n".encode()

    def assemble(self, rows: BinaryIO, target: BinaryIO, *, start: Position, end: Position | None) -> None:
        """Writes the table with what was ``written``, and without the rows that were set aside."""
        schema = schema_with(self._table.schema, self._columns)
        changes = _Changes(rows)
        with self._table.writer(target, schema) as writer:
            for portion in self._table.portions(start.offset, None if end is None else end.offset):
                writer.write(self._changed(portion, changes, schema), group=portion.group)

    def _changed(self, portion: Portion, changes: _Changes, schema: pa.Schema) -> pa.RecordBatch:
        batch = portion.batch
        texts: dict[int, str] = {}
        added: list[dict[str, Any] | None] = [None] * batch.num_rows
        kept = [True] * batch.num_rows
        for number, *change in changes.before(portion.first + batch.num_rows + 1):
            index = number - portion.first - 1
            if not change:
                kept[index] = False
                continue
            text, added[index] = change
            if text is not None:
                texts[index] = text
        written = changed(batch, self._column, texts, added, schema=schema)
        return written if all(kept) else _only(written, kept)


def schema_with(schema: pa.Schema, columns: Columns) -> pa.Schema:
    """The schema with the column that receives what was found, if one does."""
    if columns.into is None:
        return schema
    if columns.into in schema.names:
        raise UsageError(f"there is a column {columns.into!r} already: choose another --into")
    added = pa.struct([(name, ADDED_TYPES[name]) for name in columns.added])
    return schema.append(pa.field(columns.into, added))


def changed(
    batch: pa.RecordBatch,
    column: TextColumn,
    texts: Mapping[int, str],
    added: Sequence[Mapping[str, Any] | None],
    *,
    schema: pa.Schema,
) -> pa.RecordBatch:
    """The batch with other texts in some rows, and with what was found of each if the schema has a column."""
    columns = column.replaced(batch, texts).columns
    if len(schema) > len(columns):
        columns = [*columns, pa.array(map(_pairs, added), schema.field(len(schema) - 1).type)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _Changes:
    """What was written of rows, in their order: the number of each first."""

    def __init__(self, rows: BinaryIO) -> None:
        self._rows = rows
        self._next = self._read()

    def before(self, number: int) -> Iterator[list[Any]]:
        """The changes of rows that come before the row of this number, each of them once."""
        while self._next is not None and self._next[0] < number:
            yield self._next
            self._next = self._read()

    def _read(self) -> list[Any] | None:
        line = self._rows.readline()
        return list(json.loads(line)) if line else None


@dataclass(frozen=True, slots=True)
class TextColumn:
    """The text at ``field`` in every row: in the column ``column``, and in it at ``steps``."""

    field: str
    column: int
    steps: tuple[str, ...] = ()

    @classmethod
    def find(cls, schema: pa.Schema, field: str) -> TextColumn:
        """The column of that name, or the path to it; UsageError if there is none of text."""
        name, *steps = field.split(".")
        whole, outer = schema.get_all_field_indices(field), schema.get_all_field_indices(name)
        ways = [cls(field, index) for index in whole]
        if steps and not whole:
            ways = [cls(field, index, tuple(steps)) for index in outer]
        elif steps and any(_type_at(schema.field(index).type, steps) is not None for index in outer):
            raise UsageError(f"{field!r} appears 2 times: as a column and as a path")
        if not ways:
            shown = ", ".join(map(repr, schema.names[:SHOWN_COLUMNS]))
            raise UsageError(f"no column {field!r}: there are {shown}; name one with --field")
        if len(ways) > 1:
            raise UsageError(f"there are {len(ways)} columns {ways[0]._name(schema)!r}")
        (column,) = ways
        kind = _type_at(schema.field(column.column).type, column.steps)
        if kind is None:
            top = schema.field(column.column)
            raise UsageError(f"column {top.name!r} has no {'.'.join(column.steps)!r} in it: it is {top.type}")
        if not _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise UsageError(f"column {field!r} is of type {kind}: name one of strings, or cast it to string")
        return column

    def kind(self, schema: pa.Schema) -> pa.DataType:
        """The type that the texts have in the file."""
        return _type_at(schema.field(self.column).type, self.steps)

    def texts(self, batch: pa.RecordBatch) -> list[Text]:
        """Every row's text, or why there is none."""
        missing = RowError(f"no text: {self.field!r} is null or missing")
        array, places = batch.column(self.column), np.arange(batch.num_rows)
        for step in self.steps:
            array, places = _inside(array, step, places)
        texts = [*_texts_in(array), None]  # the last one for what is nowhere
        return [missing if (text := texts[place]) is None else text for place in places]

    def replaced(self, batch: pa.RecordBatch, texts: Mapping[int, str]) -> pa.RecordBatch:
        """The batch with other texts in some rows; all else, types and nulls included, as it was."""
        if not texts:
            return batch
        rows = np.fromiter(texts, dtype=np.int64, count=len(texts))
        new = [_encodable(text) for text in texts.values()]
        array = _with_texts(batch.column(self.column), self.steps, rows, new)
        return batch.set_column(self.column, batch.schema.field(self.column), array)

    def _name(self, schema: pa.Schema) -> str:
        return str(schema.field(self.column).name)


def _texts_in(array: pa.Array) -> list[Text | None]:
    """The strings of an array; RowError in the place of one that is not UTF-8."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        kind = pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary()
        if pa.types.is_string_view(array.type):
            kind = pa.binary_view()
        return [None if raw is None else _decoded(raw) for raw in array.cast(kind).to_pylist()]


def _encodable(text: str) -> str:
    """The text as UTF-8 can hold it: without halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def _decoded(raw: bytes) -> Text:
    try:
        return raw.decode()
    except UnicodeDecodeError as problem:
        return RowError(f"the text is not UTF-8 at byte {problem.start}")


def _type_at(kind: pa.DataType, steps: Sequence[str]) -> pa.DataType | None:
    """The type of what stands at these steps inside of a column; None if nothing can stand there."""
    for step in steps:
        if pa.types.is_struct(kind) and len(kind.get_all_field_indices(step)) == 1:
            kind = kind.field(kind.get_field_index(step)).type
        elif _is_list(kind) and index_of(step) is not None:
            kind = kind.value_type
        else:
            return None
    return kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _inside(array: pa.Array, step: str, places: np.ndarray) -> tuple[pa.Array, np.ndarray]:
    """What stands at a step, and where in it each row's own is, -1 for nowhere.

    No function of Arrow's that selects values would do: they do not know all types yet.
    """
    present = ~np.append(array.is_null().to_numpy(zero_copy_only=False), True)  # the last one for -1
    if pa.types.is_struct(array.type):
        child, inside = array.field(array.type.get_field_index(step)), np.arange(len(array) + 1)
    else:
        starts = _starts(array)
        child, inside = _values(array), np.append(starts[:-1] + int(step), -1)
        present[:-1] &= np.diff(starts) > int(step)
    return child, np.where(present, inside, -1)[places]


def _with_texts(array: pa.Array, steps: Sequence[str], rows: np.ndarray, texts: list[str]) -> pa.Array:
    """The array with other texts at the steps in these rows, all of which have one."""
    kind = array.type
    if not steps:
        return _with_strings(array, rows, texts)
    step, *rest = steps
    nulls = array.is_null() if array.null_count else None
    if pa.types.is_struct(kind):
        children = [array.field(index) for index in range(kind.num_fields)]
        place = kind.get_field_index(step)
        children[place] = _with_texts(children[place], rest, rows, texts)
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=nulls)
    starts = _starts(array)
    values = _with_texts(_values(array), rest, starts[rows] + int(step), texts)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(values, type=kind, mask=nulls)
    large = pa.types.is_large_list(kind)
    offsets = pa.array(starts, pa.int64() if large else pa.int32())
    lists = pa.LargeListArray if large else pa.ListArray
    return lists.from_arrays(offsets, values, type=kind, mask=nulls)


def _values(array: pa.Array) -> pa.Array:
    """What the lists hold, one after the other, and nothing of lists before or behind these."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        return array.values.slice(array.offset * size, len(array) * size)
    if not len(array):
        return array.values.slice(0, 0)
    first, last = array.offsets[0].as_py(), array.offsets[-1].as_py()
    return array.values.slice(first, last - first)


def _starts(array: pa.Array) -> np.ndarray:
    """Where in _values each list begins, and where the last one ends."""
    if pa.types.is_fixed_size_list(array.type):
        return np.arange(len(array) + 1, dtype=np.int64) * int(array.type.list_size)
    if not len(array):  # it need not have offsets
        return np.zeros(1, dtype=np.int64)
    offsets: np.ndarray = array.offsets.to_numpy().astype(np.int64)
    return np.asarray(offsets - offsets[0])


def _with_strings(array: pa.Array, rows: np.ndarray, texts: list[str]) -> pa.Array:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _encoded(_with_strings(array.dictionary_decode(), rows, texts), kind)
    if pa.types.is_string_view(kind):  # no function of Arrow's replaces in these
        return _with_strings(array.cast(pa.large_string()), rows, texts).cast(kind)
    mask = np.zeros(len(array), dtype=bool)
    mask[rows] = True
    return pc.replace_with_mask(array, mask, pa.array(texts, kind))


def _encoded(array: pa.Array, kind: pa.DictionaryType) -> pa.Array:
    encoded = array.dictionary_encode()
    try:
        indices = encoded.indices.cast(kind.index_type)
    except pa.ArrowInvalid as error:
        raise UsageError(
            f"the text's column has more different texts than {kind.index_type} can count: cast it to string"
        ) from error
    return pa.DictionaryArray.from_arrays(indices, encoded.dictionary, ordered=kind.ordered)


def _only(batch: pa.RecordBatch, kept: Sequence[bool]) -> pa.RecordBatch:
    """The rows that are kept; joined from slices, because Arrow cannot filter all types."""
    slices, start = [batch.slice(0, 0)], 0
    for is_kept, run in itertools.groupby(kept):
        length = len(list(run))
        if is_kept:
            slices.append(batch.slice(start, length))
        start += length
    return pa.concat_batches(slices)


def _pairs(fields: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What was found, with the scores as Arrow's maps take them."""
    return None if fields is None else {**fields, "scores": list(fields["scores"].items())}


def _as_json(batch: pa.RecordBatch, index: int) -> bytes:
    """The row as JSON, whatever is in it."""
    return json.dumps(_cells(batch, index), ensure_ascii=False, default=str).encode("utf-8", "replace")


def _cells(batch: pa.RecordBatch, index: int) -> dict[str, Any]:
    row = batch.slice(index, 1)
    return {name: _cell(column) for name, column in zip(row.schema.names, row.columns, strict=True)}


def _cell(column: pa.Array) -> Any:
    try:
        return column[0].as_py()
    except UnicodeDecodeError:
        return "not UTF-8" if pa.types.is_nested(column.type) else repr(column.cast(pa.binary())[0].as_py())
    except ValueError:  # Python has no such value: a time in nanoseconds, the year 10000
        return f"a value of type {column.type}"
