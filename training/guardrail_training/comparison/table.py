"""All rows of the experiment as tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardrail_training.comparison.pareto import UTILITIES, draw, on_the_front
from guardrail_training.comparison.seeds import Row, over_seeds
from guardrail_training.metrics.statistics import Mean, bootstrap_mean

__all__ = ["JUDGEMENT", "changes", "seed_by_seed", "table", "write_comparison"]

JUDGEMENT = "preference-judge.json"
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
    path.write_text(table(rows) + changes(rows) + seed_by_seed(runs) + _judgement(folder), encoding="utf-8")
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
        f"| row against base | seeds | {' | '.join(heads)} | PIQA, points | PIQA margin | WikiText |",
        f"|---|---|{'---|' * len(judges)}---|---|---|",
    ]
    for row in rows:
        if row is base or row["measures"] != base["measures"]:
            continue
        cells = [row["row"], _seeds(row)]
        for own, of_base in zip(row["judges"], base["judges"], strict=True):
            cells.append(
                _interval_in(_difference(own["means"], of_base["means"]), of=of_base["mean"]["value"])
            )
        own, of_base = row["piqa"], base["piqa"]
        cells.append(_interval_in(_difference(own["right"], of_base["right"]), of=1.0, unit=""))
        margin = _difference(own["ahead"], of_base["ahead"])
        cells.append(_interval_in(margin, of=float(np.mean(of_base["ahead"]))))
        cells.append(f"{100 * (row['perplexity'] / base['perplexity'] - 1):+.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def seed_by_seed(runs: Sequence[Row]) -> str:
    """A Markdown table of the rows that were run with several seeds, a line for each; empty without such."""
    several = {row["row"] for row in over_seeds(runs) if len(row["seeds"]) > 1}
    shown = sorted(
        (run for run in runs if run["row"] in several), key=lambda run: (run["row"], int(run["seed"]))
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
