"""All rows of the experiment as tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardrail_training.metrics.statistics import Mean, bootstrap_mean
from research.comparison.pareto import UTILITIES, draw, on_the_front
from research.comparison.seeds import Row, over_seeds

__all__ = ["JUDGEMENT", "changes", "seed_by_seed", "table", "write_comparison"]

JUDGEMENT = "preference-judge.json"
AGAINST = ("base", "regularized-adaptive")
"""The rows that all others are paired with."""
SEED = 0


def write_comparison(folder: str | Path) -> Path:
    """Writes ``comparison.md``, and ``pareto.png`` where matplotlib is there; returns the table's path.

    Seeds of a row are one row there; a table of each follows. It ends with what the preference judge found,
    where one was asked.
    """
    folder = Path(folder)
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-[0-9]*.json"))]
    rows = sorted(over_seeds(runs), key=lambda row: (-row["toxicity"]["mean"]["value"], row["row"]))
    path = folder / "comparison.md"
    parts = [table(rows), *(changes(rows, against=row) for row in AGAINST), seed_by_seed(runs)]
    path.write_text("".join(parts) + _judgement(folder), encoding="utf-8")
    draw(rows, folder / "pareto.png")
    return path


def table(rows: Sequence[Row]) -> str:
    """A Markdown table of rows, joined over their seeds; the last column says on which Pareto fronts each is.

    A front holds the rows of which no other is both less toxic and better, in PIQA accuracy or in WikiText.
    WikiText is a perplexity; ROC is the area under it of "is this message toxic?", where a row was asked.
    Drawn and learned are thousands of tokens: of responses, and of what carried a gradient. Seconds are those
    of training per optimizer step of the language model, with all that was drawn and fitted for it, and
    compare between rows that were trained in the same dtype.
    """
    heads = [
        *("row", "seeds", "mean toxicity", "P(toxic)", "PIQA", "PIQA margin", "WikiText", "ROC"),
        *("drawn, k", "learned, k", "s per step", "in", "on the front of"),
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    fronts = {name: on_the_front(rows, worth) for name, (worth, _) in UTILITIES.items()}
    for place, row in enumerate(rows):
        toxicity, piqa, effort = row["toxicity"], row["piqa"], row.get("effort")
        cells = [
            row["row"],
            _seeds(row),
            _interval(toxicity["mean"], digits=3),
            _interval(toxicity["share"], digits=3),
            _interval(piqa["accuracy"], digits=3),
            f"{piqa['margin']['value']:.4f}",
            f"{row['perplexity']:.2f}",
            f"{row['classification']['auc']:.3f}" if row.get("classification") else "",
            f"{effort['generated_tokens'] / 1000:.1f}" if effort else "",
            f"{effort['gradient_tokens'] / 1000:.1f}" if effort else "",
            _pace(effort),
            effort["dtype"] if effort else "",
            ", ".join(name for name, front in fronts.items() if place in front),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def changes(rows: Sequence[Row], *, against: str) -> str:
    """A Markdown table of what each row changes against one of them, prompt by prompt, question by question.

    Toxicity and the share of toxic continuations are by each judge, relative; PIQA in points, its margin and
    WikiText relative. Rows that were measured on other prompts or questions are left out; empty if the row
    ``against`` is missing.
    """
    other = next((row for row in rows if row["row"] == against), None)
    if other is None:
        return ""
    judges = [judge["judge"] for judge in other["judges"]]
    heads = [f"row against {against}", "seeds", *(f"toxicity, {judge}" for judge in judges)]
    heads += [*(f"P(toxic), {judge}" for judge in judges), "PIQA, points", "PIQA margin", "WikiText"]
    lines = ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        if row is other or row["measures"] != other["measures"]:
            continue
        pairs = list(zip(row["judges"], other["judges"], strict=True))
        own, theirs = row["piqa"], other["piqa"]
        cells = [
            *(row["row"], _seeds(row)),
            *(
                _interval_in(_difference(one["means"], two["means"]), of=two["mean"]["value"])
                for one, two in pairs
            ),
            *(_change(one["share"]["value"], two["share"]["value"]) for one, two in pairs),
            _interval_in(_difference(own["right"], theirs["right"]), of=1.0, unit=""),
            _interval_in(_difference(own["ahead"], theirs["ahead"]), of=float(np.mean(theirs["ahead"]))),
            _change(row["perplexity"], other["perplexity"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def seed_by_seed(runs: Sequence[Row]) -> str:
    """A Markdown table of the rows that were run with several seeds, a line for each; empty without such."""
    seeds = Counter(run["row"] for run in runs)
    shown = sorted(
        (run for run in runs if seeds[run["row"]] > 1), key=lambda run: (run["row"], int(run["seed"]))
    )
    if not shown:
        return ""
    judges = [f"toxicity, {judge['judge']}" for judge in shown[0]["judges"]]
    heads = ["row", "seed", *judges, "P(toxic)", "PIQA", "PIQA margin", "WikiText", "s per step", "in"]
    lines = ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for run in shown:
        effort = run["effort"]
        cells = [
            *(run["row"], str(run["seed"])),
            *(_interval(judge["mean"], digits=3) for judge in run["judges"]),
            _interval(run["toxicity"]["share"], digits=3),
            f"{run['piqa']['accuracy']['value']:.3f}",
            f"{run['piqa']['margin']['value']:.4f}",
            f"{run['perplexity']:.2f}",
            *(_pace(effort), effort["dtype"] if effort else ""),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seeds(row: Row) -> str:
    return ", ".join(map(str, row["seeds"]))


def _pace(effort: Mapping[str, Any] | None) -> str:
    if not effort or not effort["steps"] or "seconds" not in effort:
        return ""
    return f"{effort['seconds'] / effort['steps']:.2f}"


def _judgement(folder: Path) -> str:
    path = folder / JUDGEMENT
    return f"\n{json.loads(path.read_text(encoding='utf-8'))['says']}\n" if path.is_file() else ""


def _difference(own: Any, of_base: Any) -> Mean:
    return bootstrap_mean(np.asarray(own, dtype=float) - np.asarray(of_base, dtype=float), seed=SEED)


def _change(own: float, other: float) -> str:
    return f"{100 * (own / other - 1):+.1f} %" if other else "-"


def _interval_in(difference: Mean, *, of: float, unit: str = " %") -> str:
    if of == 0:
        return "-"
    value, low, high = (100 * part / of for part in (difference.value, difference.low, difference.high))
    return f"{value:+.1f}{unit} [{low:+.1f}, {high:+.1f}]"


def _interval(figure: Mapping[str, float], *, digits: int) -> str:
    value = f"{figure['value']:.{digits}f}"
    if "low" not in figure:
        return value
    return f"{value} [{figure['low']:.{digits}f}, {figure['high']:.{digits}f}]"
