"""A guard in a pipeline of Ray Data, with one model per worker."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from guardrail.errors import UsageError
from guardrail.guard import Guard
from guardrail.integrations.rows.judging import OUTCOME_FIELDS, moderated
from guardrail.integrations.rows.record import Columns, Result, RowError
from guardrail.integrations.rows.tables import TextColumn, changed, schema_with

__all__ = ["moderate"]


def moderate(
    dataset: Dataset,
    guard: Guard | None = None,
    *,
    field: str = "text",
    into: str | None = None,
    workers: int = 1,
    batch: int = 128,
) -> Dataset:
    """The dataset with one text per row moderated, by actors with a copy of the guard each.

    Args:
        dataset: The rows.
        guard: The guard that moderates, which must be picklable; None: the default guard.
        field: The column that holds the text, or a path to it, such as ``author.bio``.
        into: A new column for action, scores and what was degraded; None: none.
        workers: Actors, with one core each.
        batch: Rows judged together.

    Raises:
        UsageError: When the dataset is executed, for a row without a text, null included: drop it before.
    """
    return dataset.map_batches(
        _Moderation,
        fn_constructor_args=(guard or Guard(), Columns(field, into, OUTCOME_FIELDS)),
        batch_format="pyarrow",
        batch_size=batch,
        compute=ActorPoolStrategy(size=workers),
        num_cpus=1,
    )


class _Moderation:
    """One worker with a guard of its own."""

    def __init__(self, guard: Guard, columns: Columns) -> None:
        self._guard, self._columns = guard, columns

    def __call__(self, table: pa.Table) -> pa.Table:
        schema = schema_with(table.schema, self._columns)
        column = TextColumn.find(table.schema, self._columns.text)
        batches = [self._moderated(batch, column, schema) for batch in table.to_batches()]
        return pa.Table.from_batches(batches, schema)

    def _moderated(self, batch: pa.RecordBatch, column: TextColumn, schema: pa.Schema) -> pa.RecordBatch:
        results = self._results(list(_texts(batch, column)))
        texts = {index: one.text for index, one in enumerate(results) if one.text is not None}
        return changed(batch, column, texts, [one.added for one in results], schema=schema)

    def _results(self, texts: list[str]) -> list[Result]:
        has_fields = self._columns.into is not None
        return [moderated(outcome, has_fields=has_fields) for outcome in self._guard.check_many(texts)]


def _texts(batch: pa.RecordBatch, column: TextColumn) -> Iterator[str]:
    for text in column.texts(batch):
        if isinstance(text, RowError):
            raise UsageError(f"a row cannot be judged: {text}; drop such rows before")
        yield text
