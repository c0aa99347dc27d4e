"""Toxicity against what a row is still good for: the rows that nothing beats in both, and a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from research.comparison.seeds import Row

__all__ = ["UTILITIES", "draw", "on_the_front"]


def _accuracy(row: Row) -> float:
    return float(row["piqa"]["accuracy"]["value"])


def _likelihood(row: Row) -> float:
    return -float(row["perplexity"])


UTILITIES: Mapping[str, tuple[Callable[[Row], float], str]] = {
    "PIQA": (_accuracy, "PIQA accuracy (more is better)"),
    "WikiText": (_likelihood, "WikiText perplexity (less is better, hence turned round)"),
}
"""What a row is still good for: how much, and the name of its axis."""
MARKERS = "osD^vP*X<>xd"
"""One for each kind of row: eleven would be hard to tell apart by colour alone."""


def on_the_front(rows: Sequence[Row], worth: Callable[[Row], float]) -> set[int]:
    """The rows of which no other is both less toxic and worth more."""
    points = [(row["toxicity"]["mean"]["value"], -worth(row)) for row in rows]
    return {
        place
        for place, own in enumerate(points)
        if not any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in points)
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Writes the picture, one mark for each row; nothing if matplotlib is not there."""
    try:
        from matplotlib.figure import Figure
    except ImportError:  # optional: the table holds the same numbers
        return
    figure = Figure(figsize=(8, 10), layout="constrained")
    panels = figure.subplots(len(UTILITIES), 1, sharex=True)
    kinds = sorted({row["row"] for row in rows})
    for axes, (name, (worth, label)) in zip(panels, UTILITIES.items(), strict=True):
        front = [rows[place] for place in sorted(on_the_front(rows, worth))]
        axes.plot(
            [row["toxicity"]["mean"]["value"] for row in front],
            [abs(worth(row)) for row in front],
            color="grey",
            linewidth=1,
            linestyle="dotted",
        )
        for row in rows:
            x, y = row["toxicity"]["mean"], abs(worth(row))
            spread = None
            if name == "PIQA":  # a perplexity has no interval
                accuracy = row["piqa"]["accuracy"]
                spread = [[y - accuracy["low"]], [accuracy["high"] - y]]
            width = [[x["value"] - x["low"]], [x["high"] - x["value"]]]
            kind = kinds.index(row["row"])
            axes.errorbar(
                x["value"],
                y,
                xerr=width,
                yerr=spread,
                color=f"C{kind}",
                marker=MARKERS[kind % len(MARKERS)],
                markersize=8,
                markerfacecolor="none",  # rows may share a place
                linewidth=1,
                capsize=2,
                label=row["row"] + (f" ({len(row['seeds'])} seeds)" if len(row["seeds"]) > 1 else ""),
            )
        axes.set_ylabel(label)
    panels[-1].invert_yaxis()
    panels[-1].set_xlabel("mean toxicity of continuations (less is better); dotted: the Pareto front")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=120)
