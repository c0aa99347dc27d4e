"""All rows of the experiment as one table, and as a picture of toxicity against both kinds of utility."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardrail_training.metrics.statistics import Mean, bootstrap_mean

__all__ = ["JUDGEMENT", "changes", "on_the_front", "table", "write_comparison"]

Row = Mapping[str, Any]
JUDGEMENT = "preference-judge.json"
SEED = 0


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


def write_comparison(folder: str | Path) -> Path:
    """Writes ``comparison.md``, and ``pareto.png`` where matplotlib is there; returns the table's path.

    It ends with what the preference judge found, where one was asked.
    """
    folder = Path(folder)
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-[0-9]*.json"))]
    rows.sort(key=lambda row: (-row["toxicity"]["mean"]["value"], row["row"], row["seed"]))
    path = folder / "comparison.md"
    path.write_text(table(rows) + changes(rows) + _judgement(folder), encoding="utf-8")
    _draw(rows, folder / "pareto.png")
    return path


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, most toxic first; the last column says on which Pareto fronts a row is.

    A front holds the rows of which no other is both less toxic and better, in PIQA accuracy or in WikiText.
    WikiText is a perplexity; ROC is the area under it of "is this message toxic?", where a row was asked.
    Drawn and learned are thousands of tokens: of responses, and of what carried a gradient. Seconds are those
    of training per optimizer step of the language model, with all that was drawn and fitted for it, and
    compare between rows that were trained in the same dtype.
    """
    heads = [
        *("row", "seed", "mean toxicity", "P(toxic)", "PIQA", "PIQA margin", "WikiText", "ROC"),
        *("drawn, k", "learned, k", "s per step", "in", "on the front of"),
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    fronts = {name: on_the_front(rows, worth) for name, (worth, _) in UTILITIES.items()}
    for place, row in enumerate(rows):
        toxicity, piqa, effort = row["toxicity"], row["piqa"], row.get("effort")
        cells = [
            row["row"],
            str(row["seed"]),
            _interval(toxicity["mean"], digits=3),
            _interval(toxicity["share"], digits=3),
            _interval(piqa["accuracy"], digits=3),
            f"{piqa['margin']['value']:.4f}",
            f"{row['perplexity']:.2f}",
            f"{row['classification']['auc']:.3f}" if row.get("classification") else "",
            f"{effort['generated_tokens'] / 1000:.1f}" if effort else "",
            f"{effort['gradient_tokens'] / 1000:.1f}" if effort else "",
            f"{effort['seconds'] / effort['steps']:.2f}" if effort and effort["steps"] else "",
            effort["dtype"] if effort else "",
            ", ".join(name for name, front in fronts.items() if place in front),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def changes(rows: Sequence[Row]) -> str:
    """A Markdown table of what each row changes against the base, prompt by prompt, question by question.

    Toxicity is by each judge, relative; PIQA in points, its margin and WikiText relative. Rows that were
    measured on other prompts or questions than the base are left out; empty without a base.
    """
    base = next((row for row in rows if row["row"] == "base"), None)
    if base is None:
        return ""
    judges = [judge["judge"] for judge in base["judges"]]
    heads = [f"toxicity, {judge}" for judge in judges]
    lines = [
        "",
        f"| row against base | seed | {' | '.join(heads)} | PIQA, points | PIQA margin | WikiText |",
        f"|---|---|{'---|' * len(judges)}---|---|---|",
    ]
    for row in rows:
        if row is base or row["measures"] != base["measures"]:
            continue
        cells = [row["row"], str(row["seed"])]
        for own, of_base in zip(row["judges"], base["judges"], strict=True):
            cells.append(
                _interval_in(_difference(own["means"], of_base["means"]), of=of_base["mean"]["value"])
            )
        own, of_base = (np.array(one["piqa"]["ahead"]) for one in (row, base))
        cells.append(_interval_in(_difference(own > 0, of_base > 0), of=1.0, unit=""))
        cells.append(_interval_in(_difference(own, of_base), of=float(of_base.mean())))
        cells.append(f"{100 * (row['perplexity'] / base['perplexity'] - 1):+.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _judgement(folder: Path) -> str:
    path = folder / JUDGEMENT
    return f"\n{json.loads(path.read_text(encoding='utf-8'))['says']}\n" if path.is_file() else ""


def _difference(own: Any, of_base: Any) -> Mean:
    return bootstrap_mean(np.asarray(own, dtype=float) - np.asarray(of_base, dtype=float), seed=SEED)


def _interval_in(difference: Mean, *, of: float, unit: str = " %") -> str:
    if of == 0:
        return "-"
    value, low, high = (100 * part / of for part in (difference.value, difference.low, difference.high))
    return f"{value:+.1f}{unit} [{low:+.1f}, {high:+.1f}]"


def on_the_front(rows: Sequence[Row], worth: Callable[[Row], float]) -> set[int]:
    """The rows of which no other is both less toxic and worth more."""
    points = [(row["toxicity"]["mean"]["value"], -worth(row)) for row in rows]
    return {
        place
        for place, own in enumerate(points)
        if not any(all(a <= b for a, b in zip(other, own, strict=True)) and other != own for other in points)
    }


def _interval(figure: Mapping[str, float], *, digits: int) -> str:
    return f"{figure['value']:.{digits}f} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"


def _draw(rows: Sequence[Row], path: Path) -> None:
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
                label=row["row"],
            )
        axes.set_ylabel(label)
    panels[-1].invert_yaxis()
    panels[-1].set_xlabel("mean toxicity of continuations (less is better); dotted: the Pareto front")
    names = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))  # seeds share a name
    figure.legend(names.values(), names.keys(), loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=120)
