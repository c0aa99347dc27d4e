"""Judges rows in batches and writes each with what became of it: for one file, and for each part of many."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from guardrail.errors import PluginError
from guardrail.guard import Guard
from guardrail.integrations.rows.compression import compressed
from guardrail.integrations.rows.output import Output
from guardrail.integrations.rows.record import (
    Assembled,
    Columns,
    Format,
    Position,
    Result,
    RowToJudge,
    to_json,
)
from guardrail.outcome import Outcome, Verdict
from guardrail.outcome.rows import verdict_row

__all__ = ["OUTCOME_FIELDS", "VERDICT_FIELDS", "RowJudge", "assembled", "batches", "moderated"]

MAX_BATCH_BYTES = 1 << 22
OUTCOME_FIELDS = ("action", "degraded", "scores")
VERDICT_FIELDS = ("scores", "flagged", "spans", "unsupported")


class RowJudge:
    """Judges the rows of one file.

    ``rows`` receives what is kept of them, ``bad`` those that cannot be judged. ``key`` and a row's number
    name its text in an audit.
    """

    def __init__(
        self,
        guard: Guard,
        form: Format,
        *,
        rows: Output,
        bad: Output,
        columns: Columns,
        scores_only: bool,
        key: str,
    ) -> None:
        self._guard, self._format, self._rows, self._bad = guard, form, rows, bad
        self._columns, self._scores_only, self._key = columns, scores_only, key

    def settle(self, batch: Sequence[RowToJudge]) -> list[Result]:
        """Judges and writes the rows of a batch; what became of those that are not blank."""
        judged = [record for record in batch if record.text is not None]
        results = dict(zip((record.number for record in judged), self._results(judged), strict=True))
        for record in batch:
            if record.error is not None:
                results[record.number] = Result(error=record.error)
            if (result := results.get(record.number)) is None:  # a blank line
                self._rows.write(record.raw)
            elif result.error is None:
                self._rows.write(self._format.written(record, result))
            else:
                self._set_aside(record, result.error)
        return list(results.values())

    def _results(self, judged: Sequence[RowToJudge]) -> list[Result]:
        texts = [record.text or "" for record in judged]
        if self._scores_only:
            return [_scored(verdict) for verdict in _verdicts(self._guard, texts)]
        keys = [f"{self._key}-{record.number}" for record in judged]
        has_fields = self._columns.into is not None
        return [moderated(one, has_fields=has_fields) for one in self._guard.check_many(texts, keys=keys)]

    def _set_aside(self, record: RowToJudge, error: str) -> None:
        source = record.raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
        row = {"line": record.number, "error": error, "source": source}
        self._bad.write(f"{to_json(row)}\n".encode())
        if isinstance(self._format, Assembled):
            self._rows.write(self._format.set_aside(record))


def assembled(
    form: Format,
    rows: BinaryIO,
    target: BinaryIO,
    *,
    name: Path,
    start: Position | None = None,
    end: Position | None = None,
) -> None:
    """Writes an output of the rows that were kept apart, compressed if its ``name`` says so.

    A table is made of its input once more, of the rows from ``start`` to ``end``.
    """
    if isinstance(form, Assembled):
        form.assemble(rows, target, start=start or form.start, end=end)
        return
    with closing(compressed(target, name)) as out:
        shutil.copyfileobj(rows, out)


def batches(records: Iterator[RowToJudge], size: int) -> Iterator[list[RowToJudge]]:
    """Groups of at most ``size`` rows, and of not many more than MAX_BATCH_BYTES."""
    batch: list[RowToJudge] = []
    length = 0
    for record in records:
        batch.append(record)
        length += len(record.raw)
        if len(batch) == size or length >= MAX_BATCH_BYTES:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


def moderated(outcome: Outcome, *, has_fields: bool) -> Result:
    """What becomes of a row with this outcome of its text."""
    added: dict[str, Any] = {}
    if has_fields:
        scores = verdict_row(outcome.verdict)["scores"]
        added = {"action": outcome.action_name, "degraded": list(outcome.degraded), "scores": scores}
    text = outcome.text if outcome.changed else None
    return Result(outcome.action_name, text=text, added=added, is_degraded=bool(outcome.degraded))


def _scored(verdict: Verdict | str) -> Result:
    if isinstance(verdict, str):
        return Result(error=verdict)
    return Result("flagged" if verdict.flagged else "clean", added=verdict_row(verdict))


def _verdicts(guard: Guard, texts: Sequence[str]) -> Sequence[Verdict | str]:
    """For each text its verdict, or why there is none; a text that breaks the detector breaks it alone."""
    try:
        return guard.detect(texts)
    except PluginError as error:
        if len(texts) == 1:
            return [str(error)]
        return [_verdicts(guard, [text])[0] for text in texts]
