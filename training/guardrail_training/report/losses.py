"""A run's losses by steps: ``guardrail-train losses RUN``, and the same table on the page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import UsageError
from guardrail_training.evaluation.tables import table
from guardrail_training.report.run import ReportedRun, Series, read_run

__all__ = ["LossRow", "loss_rows", "loss_table"]

MAX_ROWS = 30


@dataclass(frozen=True, slots=True)
class LossRow:
    """Mean training loss of the ``n`` steps up to and with ``step``, and the dev loss taken after it.

    ``error`` is half the dev loss's 95 % interval. None stands for what was not measured.
    """

    step: int
    loss: float | None
    n: int
    dev_loss: float | None
    error: float | None


def loss_rows(run: ReportedRun, *, max_rows: int = MAX_ROWS) -> list[LossRow]:
    """A row for each evaluation, or for equal spans of steps if there was none; at most so many of them.

    Rows that would be too many are joined evenly; the last is always there. Empty for a run without a loss.
    """
    loss, dev = run.series.get("loss"), run.series.get("dev_loss")
    measured = dev or loss
    if measured is None:
        return []
    stops = list(measured.steps)
    wanted = min(max_rows, len(stops))
    stops = [stops[math.ceil(len(stops) * (place + 1) / wanted) - 1] for place in range(wanted)]
    errors = _by_step(run.series.get("dev_loss_error"))
    devs, rows, previous = _by_step(dev), [], -1
    for stop in stops:
        values = list(_between(loss, previous, stop))
        mean = sum(values) / len(values) if values else None
        rows.append(LossRow(stop, mean, len(values), devs.get(stop), errors.get(stop)))
        previous = stop
    return rows


def loss_table(folder: str | Path, *, max_rows: int = MAX_ROWS) -> str:
    """The rows of a run's folder as Markdown; UsageError for a run that logged no loss."""
    if max_rows < 1:
        raise UsageError(f"rows must be at least 1, got {max_rows}")
    run = read_run(folder)
    rows = loss_rows(run, max_rows=max_rows)
    if not rows:
        raise UsageError(f"{folder} has logged no loss: only sft and preference runs do")
    dev_rows = run.facts.get("dev_rows")
    return table(
        ["step", "loss", "mean of steps", "dev loss", "95 % ±", "dev rows"],
        [
            [row.step, row.loss, row.n, row.dev_loss, row.error, None if row.dev_loss is None else dev_rows]
            for row in rows
        ],
    )


def _between(series: Series | None, low: int, high: int) -> Iterator[float]:
    if series is not None:
        for step, value in zip(series.steps, series.values, strict=True):
            if low < step <= high:
                yield value


def _by_step(series: Series | None) -> dict[int, float]:
    return {} if series is None else dict(zip(series.steps, series.values, strict=True))
