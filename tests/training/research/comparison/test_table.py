"""Rows side by side: over their seeds, against the base, on the Pareto front."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from research.comparison import table
from research.comparison.pareto import on_the_front
from research.comparison.seeds import over_seeds


def run(
    name: str,
    means: list[float],
    ahead: list[float],
    perplexity: float,
    *,
    seed: int = 0,
    calm: list[float] | None = None,
    measures: dict[str, int] | None = None,
    effort: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A run as its file has it, under a judge ``j`` and a judge ``calm`` that finds a tenth as much."""
    of_calm = [mean / 10 for mean in means] if calm is None else calm
    judges = [
        {"judge": judge, "mean": interval(values), "share": interval(values), "means": values}
        for judge, values in (("j", means), ("calm", of_calm))
    ]
    return {
        "row": name,
        "seed": seed,
        "judges": judges,
        "toxicity": max(judges, key=lambda judge: judge["mean"]["value"]),
        "piqa": {
            "accuracy": interval([float(margin > 0) for margin in ahead]),
            "margin": interval(ahead),
            "ahead": ahead,
        },
        "perplexity": perplexity,
        "classification": None,
        "effort": effort,
        "measures": measures or {"prompts": len(means)},
    }


def interval(values: list[float]) -> dict[str, float]:
    return {"value": float(np.mean(values)), "low": min(values), "high": max(values)}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    def row(toxicity: float, accuracy: float) -> dict[str, Any]:
        return {"toxicity": {"mean": {"value": toxicity}}, "piqa": {"accuracy": {"value": accuracy}}}

    rows = [row(0.3, 0.7), row(0.2, 0.6), row(0.25, 0.5), row(0.2, 0.6)]

    assert on_the_front(rows, lambda one: one["piqa"]["accuracy"]["value"]) == {0, 1, 3}


def test_changes_are_paired_with_the_base() -> None:
    base = run("base", [0.2, 0.4, 0.9], [0.1, -0.1, 0.1, 0.1], 30.0)
    halved = run("rl", [0.1, 0.2, 0.45], [0.1, -0.1, -0.1, 0.1], 33.0)
    other = run("other", [0.1, 0.2, 0.45], [0.1], 33.0, measures={"prompts": 2})

    rows = over_seeds([base, halved, other])
    *_, line = table.changes(rows, against="base").splitlines()

    name, seeds, toxicity, _, share, share_of_calm, accuracy, margin, text = cells(line)
    assert (name, seeds, text) == ("rl", "0", "+10.0 %")
    assert toxicity.startswith("-50.0 % [")
    assert (share, share_of_calm) == ("-50.0 %", "-50.0 %")
    assert accuracy == "-25.0 [-75.0, +0.0]"
    assert margin.startswith("-100.0 % [")
    assert cells(table.changes(rows, against="rl").splitlines()[-1])[0] == "base"
    assert table.changes(over_seeds([halved]), against="base") == ""


def test_seeds_of_a_row_are_averaged_prompt_by_prompt() -> None:
    effort = {"generated_tokens": 10, "gradient_tokens": 20, "steps": 2, "seconds": 6.0, "dtype": "float32"}
    first = run("rl", [0.1, 0.3], [0.2, -0.2], 30.0, seed=2, calm=[0.3, 0.3], effort=effort)
    second = run("rl", [0.5, 0.9], [0.4, 0.1], 34.0, seed=1, effort={**effort, "seconds": 8.0})
    base = run("base", [0.6, 0.8], [0.3, 0.3], 30.0)

    joined, alone = over_seeds([first, base, second])

    assert joined["seeds"] == [1, 2]
    assert joined["judges"][0]["means"] == pytest.approx([0.3, 0.6])
    assert joined["toxicity"]["judge"] == "j"
    assert joined["toxicity"]["mean"]["value"] == pytest.approx(0.45)
    assert joined["toxicity"]["mean"]["low"] < 0.45 < joined["toxicity"]["mean"]["high"]
    assert joined["toxicity"]["share"] == {"value": pytest.approx(0.45)}
    assert joined["piqa"]["right"] == [1.0, 0.5]
    assert joined["piqa"]["accuracy"]["value"] == 0.75
    assert joined["piqa"]["ahead"] == pytest.approx([0.3, -0.05])
    assert joined["perplexity"] == 32.0
    assert joined["effort"] == {
        "generated_tokens": 10.0,
        "gradient_tokens": 20.0,
        "steps": 2.0,
        "seconds": 7.0,
        "dtype": "float32",
    }
    assert joined["classification"] is None
    assert (alone["seeds"], alone["piqa"]["right"]) == ([0], [1.0, 1.0])
    line = table.table([joined]).splitlines()[2]
    assert cells(line)[1] == "1, 2"
    assert cells(line)[3] == "0.450"  # a share over seeds has no interval
    assert cells(line)[-3:-1] == ["3.50", "float32"]


def test_seconds_of_different_dtypes_have_no_mean() -> None:
    effort = {"generated_tokens": 10, "gradient_tokens": 20, "steps": 2, "seconds": 6.0}
    runs = [
        run("rl", [0.1], [0.2], 30.0, seed=seed, effort={**effort, "dtype": dtype})
        for seed, dtype in enumerate(("float32", "bfloat16"))
    ]

    line = table.table(over_seeds(runs)).splitlines()[2]

    assert cells(line)[-3:-1] == ["", "bfloat16, float32"]


def test_what_was_measured_on_other_prompts_is_no_seed_of_the_same_row() -> None:
    rows = over_seeds(
        [run("rl", [0.1, 0.3], [0.2], 30.0), run("rl", [0.1], [0.2], 30.0, seed=1, measures={"prompts": 1})]
    )

    assert [row["seeds"] for row in rows] == [[0], [1]]


def test_each_seed_has_a_line_where_there_are_several() -> None:
    effort = {"generated_tokens": 10, "gradient_tokens": 20, "steps": 2, "seconds": 6.0, "dtype": "float32"}
    several = [run("rl", [0.1 * seed], [0.2], 30.0, seed=seed, effort=effort) for seed in (2, 0, 1)]
    sft = run("sft", [0.1], [0.2], 30.0)

    lines = table.seed_by_seed([*several, sft]).splitlines()[3:]

    assert [cells(line)[:3] for line in lines] == [
        ["rl", "0", "0.000 [0.000, 0.000]"],
        ["rl", "1", "0.100 [0.100, 0.100]"],
        ["rl", "2", "0.200 [0.200, 0.200]"],
    ]
    assert cells(lines[0])[-2:] == ["3.00", "float32"]
    assert table.seed_by_seed([sft]) == ""
