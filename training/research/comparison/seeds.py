"""Rows of several seeds as one: each prompt's and each question's figures are means over the seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail_training.metrics.statistics import bootstrap_mean

__all__ = ["Row", "over_seeds"]

Row = Mapping[str, Any]
SEED = 0


def over_seeds(rows: Sequence[Row]) -> list[Row]:
    """One row for all that share a name and what they were measured on, in the order of their first ones.

    Its intervals are over prompts and questions: the judges' share of toxic continuations is known by row
    alone and has none if there is more than one seed. ``seeds`` lists them, ``piqa["right"]`` is the share
    of seeds that answer a question rightly, ``(questions,)``.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(json.dumps([row["row"], row["measures"]], sort_keys=True), []).append(row)
    return [_joined(sorted(group, key=lambda row: int(row["seed"]))) for group in groups.values()]


def _joined(group: Sequence[Row]) -> Row:
    ahead = np.array([row["piqa"]["ahead"] for row in group])
    right = (ahead > 0).mean(axis=0)
    seeds = {"seeds": [row["seed"] for row in group]}
    if len(group) == 1:
        return {**group[0], **seeds, "piqa": {**group[0]["piqa"], "right": right.tolist()}}
    judges = [_judge(of_seeds) for of_seeds in zip(*(row["judges"] for row in group), strict=True)]
    return {
        **group[0],
        **seeds,
        "judges": judges,
        "toxicity": max(judges, key=lambda judge: float(judge["mean"]["value"])),
        "piqa": {
            "accuracy": _mean(right),
            "margin": _mean(ahead.mean(axis=0)),
            "ahead": ahead.mean(axis=0).tolist(),
            "right": right.tolist(),
        },
        "perplexity": _average(group, lambda row: row["perplexity"]),
        "classification": _averages([row.get("classification") for row in group]),
        "effort": _effort([row.get("effort") for row in group]),
    }


def _judge(of_seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means = np.mean([judge["means"] for judge in of_seeds], axis=0)
    return {
        "judge": of_seeds[0]["judge"],
        "mean": _mean(means),
        "share": {"value": _average(of_seeds, lambda judge: judge["share"]["value"])},
        "means": means.tolist(),
    }


def _effort(of_seeds: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    found = _averages(of_seeds)
    if found is None:
        return None
    dtypes = sorted({effort["dtype"] for effort in of_seeds if effort})
    if len(dtypes) > 1:
        del found["seconds"]  # a mean of what does not compare
    return {**found, "dtype": ", ".join(dtypes)}


def _averages(parts: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Means of all that is a number; None if a part is missing."""
    known = [part for part in parts if part]
    if len(known) < len(parts):
        return None
    numbers = [key for key, value in known[0].items() if isinstance(value, int | float)]
    return {key: float(np.mean([part[key] for part in known])) for key in numbers}


def _average(parts: Sequence[Row], figure: Callable[[Row], float]) -> float:
    return float(np.mean([figure(part) for part in parts]))


def _mean(values: npt.NDArray[np.float64]) -> dict[str, Any]:
    return asdict(bootstrap_mean(values, seed=SEED))
