"""Charts as SVG images, one for a light and one for a dark page, by plain matplotlib.

An image of its own needs neither the page's styles nor unique ids; the dark one has other colours. Lines
differ in dashes too, bars and histograms in edges, so that nothing hangs on colour alone.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from guardrail.errors import MissingExtraError
from guardrail_training.metrics.statistics import Mean
from guardrail_training.report.run import Series

__all__ = ["MAX_SERIES", "Drawing", "bars", "curves", "histogram", "shares", "smoothing_window"]

SIZE = (4.1, 2.4)  # inches
DASHES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 2, 1, 2)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
MAX_SERIES = len(DASHES)
LEGEND_LETTERS = 58  # that fit side by side above a chart
NAME_LETTERS = 18  # of a line next to a bar
SMOOTHED_FROM = 60  # points
FLAT = 1e-3  # a range below this share of the values is drawn no wider than it
# Colours as in page.css: ink, grid, then series.
INK, GRID, *SERIES = LIGHT = (
    "#1b1f24", "#d8dee4", "#0072b2", "#d55e00", "#007a5a", "#a3478a", "#8a6d00", "#3b3b3b",
)  # fmt: skip
DARK = ("#e6eaee", "#343c45", "#56b4e9", "#ff8a3d", "#2fc59a", "#e39aca", "#f0d14a", "#c9c9c9")
LOOK: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One chart as SVG for a light and for a dark page."""

    light: str
    dark: str

    @property
    def light_address(self) -> str:
        """The light one as an address that loads nothing."""
        return _address(self.light)

    @property
    def dark_address(self) -> str:
        """The dark one as an address that loads nothing."""
        return _address(self.dark)


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def smoothing_window(count: int) -> int:
    """Over how many of so many values a curve is averaged; 1: drawn as it is."""
    return count // 20 if count >= SMOOTHED_FROM else 1


def curves(
    series: Mapping[str, Series],
    *,
    unit: str,
    spreads: Mapping[str, Series] | None = None,
    level: float | None = None,
) -> Drawing:
    """Figures over steps; ``spreads`` are drawn as a band around figures, or as bars if these are few.

    A long figure is drawn as a running mean, which the legend names, over a pale line of the values.
    """
    with _chart() as (figure, axes):
        for place, (name, one) in enumerate(series.items()):
            _draw_curve(axes, name, one, colour=SERIES[place % MAX_SERIES], dash=DASHES[place % MAX_SERIES])
            if spread := (spreads or {}).get(name):
                _draw_spread(axes, one, spread, colour=SERIES[place % MAX_SERIES])
        if level is not None:
            axes.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label=f"target {level:g}")
        axes.set_xlabel("step")
        axes.set_ylabel(_legible(unit))
        axes.xaxis.get_major_locator().set_params(integer=True)
        _widen_if_flat(axes)
        is_smoothed = any(smoothing_window(len(one.values)) > 1 for one in series.values())
        if len(series) > 1 or level is not None or is_smoothed:
            _legend_above(figure, axes)
        return _drawing(figure)


def histogram(
    samples: Mapping[str, Sequence[float]], *, unit: str, bounds: tuple[float, float], first_colour: int = 0
) -> Drawing:
    """How often values occur, one outline per model, all over the same twenty bins."""
    edges = np.linspace(*bounds, 21)
    with _chart() as (figure, axes):
        for place, (name, values) in enumerate(samples.items(), first_colour):
            counts, _ = np.histogram(np.clip(values, *bounds), bins=edges)
            colour, dash = SERIES[place % MAX_SERIES], DASHES[place % MAX_SERIES]
            axes.stairs(counts, edges, color=colour, alpha=0.18, fill=True)
            axes.stairs(counts, edges, color=colour, linewidth=1.6, linestyle=dash, label=_legible(name))
        axes.set_xlabel(_legible(unit))
        axes.set_ylabel("responses")
        axes.yaxis.get_major_locator().set_params(integer=True)
        _legend_above(figure, axes)
        return _drawing(figure)


def bars(models: Mapping[str, Mapping[str, Mean]]) -> Drawing:
    """Means with 95 % intervals: a group per measure, a bar per model; every model has the same measures."""
    measures = list(next(iter(models.values())))
    width = 0.8 / len(models)
    with _chart() as (figure, axes):
        for place, (name, means) in enumerate(models.items()):
            middles = np.arange(len(measures)) - 0.4 + width * (place + 0.5)
            found = [means[each] for each in measures]
            colour, heights = SERIES[place % MAX_SERIES], [mean.value for mean in found]
            # A percentile interval of a skewed mean may leave the mean just outside.
            below = [max(0.0, mean.value - mean.low) for mean in found]
            above = [max(0.0, mean.high - mean.value) for mean in found]
            filled = {"height": heights, "width": width * 0.9}
            axes.bar(middles, color=colour, alpha=0.45, label=_legible(name), **filled)
            dash = DASHES[place % MAX_SERIES]
            axes.bar(middles, fill=False, edgecolor=colour, linewidth=1.4, linestyle=dash, **filled)
            axes.errorbar(middles, heights, [below, above], fmt="none", ecolor=INK, elinewidth=1.2)
        names = ["\n".join(textwrap.wrap(_legible(name), NAME_LETTERS)) for name in measures]
        axes.set_xticks(range(len(measures)), names)
        axes.set_ylabel("mean")
        axes.grid(visible=False, axis="x")
        _legend_above(figure, axes)
        return _drawing(figure)


def shares(figures: Mapping[str, Mean | float], *, unit: str, marked: Container[int] = ()) -> Drawing:
    """Figures in 0..1 as one bar below the other, each with its value, and its 95 % interval if it has one.

    Bars at the ``marked`` places stand out.
    """
    with _chart(height=0.6 + 0.36 * max(4, len(figures))) as (figure, axes):
        for place, mean in enumerate(figures.values()):
            value = mean.value if isinstance(mean, Mean) else mean
            low, high = (mean.low, mean.high) if isinstance(mean, Mean) else (value, value)
            colour, width = (SERIES[1], 2.2) if place in marked else (SERIES[0], 1.2)
            axes.barh(place, value, 0.7, color=colour, alpha=0.45)
            axes.barh(place, value, 0.7, fill=False, edgecolor=colour, linewidth=width)
            if high > low:
                axes.plot([low, high], [place, place], color=INK, linewidth=1.2)
            axes.text(max(value, high) + 0.03, place, f"{value:.3f}", va="center")
        names = ["\n".join(textwrap.wrap(_legible(name), NAME_LETTERS)) for name in figures]
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.18)  # room for the value next to a full bar
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel(_legible(unit))
        axes.grid(visible=False, axis="y")
        return _drawing(figure)


@contextmanager
def _chart(*, height: float = SIZE[1]) -> Iterator[tuple[Any, Any]]:
    """A figure with one set of axes, ``height`` in inches; the look holds while inside."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter
    except ImportError as error:
        raise MissingExtraError(feature="a report", extra="train") from error
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(SIZE[0], height), layout="constrained")
        axes = figure.add_subplot()
        # Every tick is the whole number: none is the rest of an offset or factor alongside the axis.
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        yield figure, axes


def _drawing(figure: Any) -> Drawing:
    image = io.StringIO()
    figure.savefig(image, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    light = dark = image.getvalue()
    for ours, theirs in zip(LIGHT, DARK, strict=True):
        dark = dark.replace(ours, theirs)
    return Drawing(light, dark)


def _tick(value: float, place: int) -> str:
    shown = f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.6g}"
    mantissa, _, exponent = shown.partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _draw_curve(axes: Any, name: str, one: Series, *, colour: str, dash: Any) -> None:
    values, label, window = np.array(one.values), _legible(name), smoothing_window(len(one.values))
    if window > 1:
        axes.plot(one.steps, values, color=colour, linewidth=0.7, alpha=0.35)
        values, label = _running_mean(values, window=window), f"{label}, mean of {window}"
    marker = "o" if len(values) < 12 else None
    axes.plot(
        one.steps,
        values,
        color=colour,
        linewidth=1.6,
        marker=marker,
        markersize=3,
        linestyle=dash,
        label=label,
    )


def _draw_spread(axes: Any, middle: Series, spread: Series, *, colour: str) -> None:
    widths = dict(zip(spread.steps, spread.values, strict=True))
    points = [
        (step, value, widths[step])
        for step, value in zip(middle.steps, middle.values, strict=True)
        if step in widths and math.isfinite(value) and math.isfinite(widths[step])
    ]
    if not points:
        return
    steps, values, half = (np.array(column) for column in zip(*points, strict=True))
    if len(points) < SMOOTHED_FROM // 2:
        axes.errorbar(steps, values, np.abs(half), fmt="none", ecolor=colour, elinewidth=1, capsize=2)
    else:
        axes.fill_between(steps, values - half, values + half, color=colour, alpha=0.15, linewidth=0)


def _running_mean(values: Any, *, window: int) -> Any:
    """The mean over a window around each value; at the ends over the part of it that is there."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _widen_if_flat(axes: Any) -> None:
    """Keeps rounding from filling the chart: what hardly changes looks as if it hardly changed."""
    low, high = axes.get_ylim()
    least = FLAT * max(abs(low), abs(high))
    if high - low < least:
        middle = (low + high) / 2
        axes.set_ylim(middle - least / 2, middle + least / 2)


def _legend_above(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), LEGEND_LETTERS // (8 + max(map(len, labels)))))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=3)


def _legible(name: str) -> str:
    """The name as XML can hold it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
