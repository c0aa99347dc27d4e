"""The page's part on training: charts over steps, and the same figures as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from guardrail_training.report.charts import Chart, charts_of
from guardrail_training.report.drawing import MOST_SERIES, curves, with_alternative
from guardrail_training.report.markup import Element, Node, element, folded, table
from guardrail_training.report.numbers import number
from guardrail_training.report.run import Run, Series

__all__ = ["figure_of", "training_section"]


def training_section(run: Run) -> Element:
    """Charts of all that was logged; what is rarely looked at is folded away."""
    known, others = charts_of(run.series)
    return element(
        "section",
        element("h2", "Training", id="training"),
        element("div", *_figures(known, run, key="chart"), class_="charts"),
        folded(
            f"{len(others)} other logged figures",
            element("div", *_figures(others, run, key="other"), class_="charts"),
        )
        if others
        else None,
        folded("All logged figures as numbers", _numbers(run)),
    )


def _figures(charts: list[Chart], run: Run, *, key: str) -> Iterator[Element]:
    for place, chart in enumerate(charts):
        names = chart.names[:MOST_SERIES]
        series = {name: run.series[name] for name in names}
        level = run.settings.get(chart.level) if chart.level and _is_steered(run) else None
        drawing = curves(
            series,
            unit=chart.unit,
            band=run.series[chart.spread] if chart.spread else None,
            level=level,
        )
        left_out = len(chart.names) - len(names)
        more = f" {left_out} more are in the table of numbers." if left_out else ""
        yield figure_of(
            drawing,
            key=f"{key}-{place}",
            title=chart.title,
            says="; ".join(f"{name} {_course(one)}" for name, one in series.items()),
            caption=[
                f"{chart.says}{more} ",
                *(element("code", name) for name in names[:1] if len(names) == 1),
            ],
        )


def _is_steered(run: Run) -> bool:
    return run.settings.get("kl_control") == "adaptive"


def figure_of(drawing: Element, *, key: str, title: str, says: str, caption: Sequence[Node]) -> Element:
    """A drawing under its title with what it shows in words, for those who do not see it."""
    return element(
        "figure",
        element("h3", title),
        with_alternative(drawing, key=key, title=title, says=says),
        element("figcaption", *caption),
    )


def _course(series: Series) -> str:
    """A figure's course in words."""
    first, last = series.values[0], series.values[-1]
    return f"from {number(first)} at step {series.steps[0]} to {number(last)} at step {series.steps[-1]}"


def _numbers(run: Run) -> Element:
    rows = []
    for name, series in run.series.items():
        finite = [value for value in series.values if math.isfinite(value)]
        ends = (min(finite), max(finite)) if finite else (math.nan, math.nan)
        values = (series.values[0], series.values[-1], *ends)
        rows.append([name, str(len(series.values)), *map(number, values)])
    header = ["figure", "logged", "first", "last", "least", "greatest"]
    return table(header, rows, caption="Every figure in metrics.jsonl")
