"""The page's part on training: charts over steps, losses by steps, all figures as numbers."""

from __future__ import annotations

import math

from guardrail_training.report.charts import Chart
from guardrail_training.report.drawing import MAX_SERIES, curves, smoothing_window
from guardrail_training.report.losses import loss_rows
from guardrail_training.report.numbers import number
from guardrail_training.report.run import ReportedRun, Series
from guardrail_training.report.tables import Figure, Table, table

__all__ = ["chart_figure", "figures_as_numbers", "losses_by_steps"]


def chart_figure(chart: Chart, run: ReportedRun) -> Figure:
    """The chart of a run's logged figures."""
    names = chart.names[:MAX_SERIES]
    series = {name: run.series[name] for name in names}
    is_steered = run.settings.get("kl_control") == "adaptive"
    left_out = len(chart.names) - len(names)
    return Figure(
        title=chart.title,
        drawing=curves(
            series,
            unit=chart.unit,
            spreads={of: run.series[name] for of, name in chart.spreads if name in run.series},
            level=run.settings.get(chart.level) if chart.level and is_steered else None,
        ),
        says="; ".join(f"{name} {_course(one)}" for name, one in series.items()),
        caption=" ".join(
            part
            for part in (
                chart.says,
                _dev_note(run) if "dev_loss" in names else "",
                _smoothing_note(series),
                f"{left_out} more are in the table of numbers." if left_out else "",
            )
            if part
        ),
        code=names[0] if len(names) == 1 else "",
    )


def dev_note(run: ReportedRun) -> str:
    """How many rows a dev figure is of."""
    rows = run.facts.get("dev_rows")
    return f"dev n = {rows}" if rows else "dev n unknown"


def _dev_note(run: ReportedRun) -> str:
    bars = "; its bars are 95 % intervals over rows" if "dev_loss_error" in run.series else ""
    return f"dev_loss over the dev set ({dev_note(run)}){bars}."


def _smoothing_note(series: dict[str, Series]) -> str:
    windows = {smoothing_window(len(one.values)) for one in series.values()} - {1}
    return "Pale: every value; strong: the running mean of as many as the legend says." if windows else ""


def _course(series: Series) -> str:
    """A figure's course in words."""
    first, last = series.values[0], series.values[-1]
    return f"from {number(first)} at step {series.steps[0]} to {number(last)} at step {series.steps[-1]}"


def losses_by_steps(run: ReportedRun) -> Table | None:
    """Training and dev loss at each evaluation; None for a run without a loss."""
    rows = loss_rows(run)
    if not rows:
        return None
    dev_rows = run.facts.get("dev_rows")
    return table(
        ["step", "loss", "mean of steps", "dev loss", "95 % ±", "dev n"],
        [
            [
                number(row.step),
                number(row.loss),
                number(row.n),
                number(row.dev_loss),
                number(row.error),
                number(dev_rows if row.dev_loss is not None else None),
            ]
            for row in rows
        ],
        caption="Loss by steps, nats per token",
    )


def figures_as_numbers(run: ReportedRun) -> Table:
    """Every logged figure: first, last, minimum and maximum."""
    rows = []
    for name, series in run.series.items():
        finite = [value for value in series.values if math.isfinite(value)]
        ends = (min(finite), max(finite)) if finite else (math.nan, math.nan)
        values = (series.values[0], series.values[-1], *ends)
        rows.append([name, str(len(series.values)), *map(number, values)])
    header = ["figure", "logged", "first", "last", "min", "max"]
    return table(header, rows, caption="Every figure in metrics.jsonl")
