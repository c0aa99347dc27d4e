"""A table in, the same table with a column of verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from guardrail.errors import UsageError
from guardrail.integrations.rows.field_path import RowError
from guardrail.integrations.rows.formats import TableKind, opened_source
from guardrail.integrations.rows.lines import Columns, Report, replacing, require_apart, verdicts_of
from guardrail.integrations.rows.table_files import PORTION_ROWS, Portion, TableFile
from guardrail.integrations.rows.text_column import TextColumn
from guardrail.outcome import Verdict
from guardrail.outcome.rows import verdict_row

__all__ = ["judge_table"]

VERDICT = pa.struct(
    [
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("flagged", pa.bool_()),
        ("spans", pa.list_(pa.list_(pa.int64()))),
        ("unsupported", pa.bool_()),
        ("error", pa.string()),
    ]
)


def judge_table(
    detect: Callable[[Sequence[str]], list[Verdict]],
    source: Path,
    target: Path,
    *,
    columns: Columns,
    batch: int,
    kind: TableKind,
) -> Report:
    """Judges every row; the verdict of one that cannot be judged is null but for its ``error``.

    ``batch`` rows are judged at a time. The output stands in its place once it is complete. Raises UsageError
    if the table has no such column of text, or one of the verdict's name.
    """
    with opened_source(source, kind) as file:
        require_apart(source, target)
        table = TableFile(file, kind=kind)
        column = TextColumn.find(table.schema, columns.text)
        if columns.verdict in table.schema.names:
            raise UsageError(f"there is a column {columns.verdict!r} already: choose another with --into")
        schema = table.schema.append(pa.field(columns.verdict, VERDICT))
        judge = _Judge(detect, column, batch)
        with replacing(target) as out, table.writer(out, schema) as writer:
            for portion in table.portions():
                verdicts = pa.array(judge.rows(portion), VERDICT)
                judged = pa.RecordBatch.from_arrays([*portion.batch.columns, verdicts], schema=schema)
                writer.write(judged, group=portion.group)
    return Report(judge.judged, judge.flagged, tuple(judge.bad))


@dataclass(slots=True)
class _Judge:
    detect: Callable[[Sequence[str]], list[Verdict]]
    column: TextColumn
    batch: int
    judged: int = 0
    flagged: int = 0
    bad: list[int] = field(default_factory=list)

    def rows(self, portion: Portion) -> list[dict[str, Any]]:
        """The verdicts of a portion's rows, as the column takes them."""
        size = min(self.batch, PORTION_ROWS)
        return [
            row
            for first in range(0, portion.batch.num_rows, size)
            for row in self._verdicts(portion.batch.slice(first, size), portion.first + first)
        ]

    def _verdicts(self, batch: pa.RecordBatch, before: int) -> list[dict[str, Any]]:
        texts = self.column.texts(batch)
        verdicts = iter(verdicts_of(self.detect, [text for text in texts if isinstance(text, str)]))
        rows = []
        for number, text in enumerate(texts, before + 1):
            verdict = str(text) if isinstance(text, RowError) else next(verdicts)
            if isinstance(verdict, Verdict):
                self.judged += 1
                self.flagged += verdict.flagged
                told = verdict_row(verdict)
                rows.append({**told, "scores": list(told["scores"].items())})
            else:
                self.bad.append(number)
                rows.append({"error": verdict})
        return rows
