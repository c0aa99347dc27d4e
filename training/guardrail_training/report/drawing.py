"""Charts as SVG elements in the page's own colours: matplotlib draws, the page's style sheet colours.

matplotlib writes style attributes, which the page's security policy forbids and which a dark page could not
change. They become presentation attributes here, and each named colour a variable of the style sheet. Lines
differ in dashes too, bars and histograms in edges, so that nothing hangs on colour alone.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree

import numpy as np

from guardrail.errors import MissingExtraError
from guardrail_training.metrics.statistics import Mean
from guardrail_training.report.markup import Element, element
from guardrail_training.report.run import Series

__all__ = ["MOST_SERIES", "bars", "curves", "histogram", "shares", "with_alternative"]

INK, RULE = "#010203", "#010204"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006")
VARIABLES = {INK: "var(--ink)", RULE: "var(--rule)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)
}
DASHES = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 2, 1, 2)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
MOST_SERIES = len(SERIES)
SIZE = (4.1, 2.4)  # inches
LEGEND_LETTERS = 58  # that fit side by side above a chart
NAME_LETTERS = 18  # of a line beside a bar
SMOOTHED_FROM = 60  # points
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
    "grid.color": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.formatter.limits": (-3, 5),
}


def curves(
    series: Mapping[str, Series], *, unit: str, band: Series | None = None, level: float | None = None
) -> Element:
    """Figures over steps; ``band`` is the standard deviation around the first.

    Long noisy figures are drawn as a running mean over a pale line of the values themselves.
    """
    with _chart() as (figure, axes):
        for place, (name, one) in enumerate(series.items()):
            colour, dash = SERIES[place % MOST_SERIES], DASHES[place % MOST_SERIES]
            marker = "o" if len(one.values) < 12 else None
            values, line = np.array(one.values), {"color": colour, "linewidth": 1.6, "marker": marker}
            if len(values) >= SMOOTHED_FROM:
                axes.plot(one.steps, values, color=colour, linewidth=0.7, alpha=0.35)
                values = _running_mean(values, window=len(values) // 20)
            axes.plot(one.steps, values, label=_legible(name), linestyle=dash, markersize=3, **line)
        if band is not None:
            _draw_band(axes, next(iter(series.values())), band)
        if level is not None:
            axes.axhline(level, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), label=f"target {level:g}")
        axes.set_xlabel("step")
        axes.set_ylabel(_legible(unit))
        axes.xaxis.get_major_locator().set_params(integer=True)
        if len(series) > 1 or level is not None:
            _legend_above(figure, axes)
        return _svg(figure)


def histogram(
    samples: Mapping[str, Sequence[float]], *, unit: str, bounds: tuple[float, float], first_colour: int = 0
) -> Element:
    """How often values occur, one outline per model, all over the same twenty bins."""
    edges = np.linspace(*bounds, 21)
    with _chart() as (figure, axes):
        for place, (name, values) in enumerate(samples.items(), first_colour):
            counts, _ = np.histogram(np.clip(values, *bounds), bins=edges)
            colour, dash = SERIES[place % MOST_SERIES], DASHES[place % MOST_SERIES]
            axes.stairs(counts, edges, color=colour, alpha=0.18, fill=True)
            axes.stairs(counts, edges, color=colour, linewidth=1.6, linestyle=dash, label=_legible(name))
        axes.set_xlabel(_legible(unit))
        axes.set_ylabel("responses")
        axes.yaxis.get_major_locator().set_params(integer=True)
        _legend_above(figure, axes)
        return _svg(figure)


def bars(models: Mapping[str, Mapping[str, Mean]]) -> Element:
    """Means with 95 % intervals: a group per measure, a bar per model; every model has the same measures."""
    measures = list(next(iter(models.values())))
    width = 0.8 / len(models)
    with _chart() as (figure, axes):
        for place, (name, means) in enumerate(models.items()):
            middles = np.arange(len(measures)) - 0.4 + width * (place + 0.5)
            _draw_bars(axes, middles, [means[each] for each in measures], name=name, width=width, place=place)
        axes.set_xticks(range(len(measures)), [_legible(measure) for measure in measures])
        axes.set_ylabel("mean")
        axes.grid(visible=False, axis="x")
        _legend_above(figure, axes)
        return _svg(figure)


def shares(figures: Mapping[str, Mean | float], *, unit: str, marked: Container[int] = ()) -> Element:
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
        axes.set_xlim(0, 1.18)  # room for the value beside a full bar
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_xlabel(_legible(unit))
        axes.grid(visible=False, axis="y")
        return _svg(figure)


def _draw_bars(
    axes: Any, middles: Any, means: Sequence[Mean], *, name: str, width: float, place: int
) -> None:
    colour, dash = SERIES[place % MOST_SERIES], DASHES[place % MOST_SERIES]
    heights = [mean.value for mean in means]
    # A percentile interval of a skewed mean may leave the mean just outside.
    below = [max(0.0, mean.value - mean.low) for mean in means]
    above = [max(0.0, mean.high - mean.value) for mean in means]
    axes.bar(middles, heights, width * 0.9, color=colour, alpha=0.45, label=_legible(name))
    axes.bar(middles, heights, width * 0.9, fill=False, edgecolor=colour, linewidth=1.4, linestyle=dash)
    axes.errorbar(middles, heights, [below, above], fmt="none", ecolor=INK, elinewidth=1.2)


@contextmanager
def _chart(*, height: float = SIZE[1]) -> Iterator[tuple[Any, Any]]:
    """A figure with one set of axes, ``height`` in inches; the look holds while inside."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(feature="a report", extra="train") from error
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(SIZE[0], height), layout="constrained")
        yield figure, figure.add_subplot()


def _running_mean(values: Any, *, window: int) -> Any:
    """The mean over a window around each value; at the ends over the part of it that is there."""
    ones = np.ones(window)
    return np.convolve(values, ones, "same") / np.convolve(np.ones(len(values)), ones, "same")


def _draw_band(axes: Any, middle: Series, band: Series) -> None:
    spread = dict(zip(band.steps, band.values, strict=True))
    points = [
        (step, value, spread[step])
        for step, value in zip(middle.steps, middle.values, strict=True)
        if step in spread and math.isfinite(value) and math.isfinite(spread[step])
    ]
    if points:
        steps, values, widths = (np.array(column) for column in zip(*points, strict=True))
        axes.fill_between(steps, values - widths, values + widths, color=SERIES[0], alpha=0.15, linewidth=0)


def _legend_above(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(len(labels), LEGEND_LETTERS // (8 + max(map(len, labels)))))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, handlelength=3)


def _legible(name: str) -> str:
    """The name as XML can hold it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)


def _svg(figure: Any) -> Element:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(drawn.getvalue())
    _adopt(root)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("stroke-linejoin", "round")  # what matplotlib's own style sheet says
    for child in list(root):
        if child.tag == "metadata" or child.find("style") is not None:
            root.remove(child)
    return root


def _adopt(root: Element) -> None:
    """Names without prefixes, no ids but those that are referred to, presentation attributes for styles."""
    for node in root.iter():
        node.tag = _local(node.tag)
        attributes = {_local(name): value for name, value in node.attrib.items()}
        attributes |= _presentation(attributes.pop("style", ""))
        if node.tag == "g":
            attributes.pop("id", None)
        node.attrib.clear()
        node.attrib.update(attributes)


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _presentation(style: str) -> dict[str, str]:
    pairs = (declaration.partition(":") for declaration in style.split(";") if declaration.strip())
    found = {name.strip(): value.strip() for name, _, value in pairs}
    found.pop("font-family", None)  # the page's own
    return {name: VARIABLES.get(value, value) for name, value in found.items()}


def with_alternative(drawing: Element, *, key: str, title: str, says: str) -> Element:
    """The drawing as one image with a name and a description, its ids made the page's own by ``key``."""
    for node in drawing.iter():
        for name, value in node.attrib.items():
            node.set(name, _own_ids(name, value, key))
    drawing.set("role", "img")
    drawing.set("aria-labelledby", f"{key}-title {key}-says")
    drawing.insert(0, element("desc", says, id=f"{key}-says"))
    drawing.insert(0, element("title", title, id=f"{key}-title"))
    return drawing


def _own_ids(name: str, value: str, key: str) -> str:
    if name == "id":
        return f"{key}-{value}"
    if name == "href":
        return f"#{key}-{value.removeprefix('#')}"
    return re.sub(r"url\(#", f"url(#{key}-", value)
