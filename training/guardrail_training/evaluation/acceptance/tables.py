"""An acceptance result as Markdown, made from its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from guardrail_training.evaluation.tables import table

__all__ = ["acceptance_tables"]

Result = Mapping[str, Any]


def acceptance_tables(result: Result) -> str:
    """Agreement of the readers, figures per system and set, faults, paired differences."""
    return "\n".join(
        [
            "# Acceptance\n",
            *(f"{line}\n" for line in result["rule"]),
            "## Readers\n",
            _agreement(result),
            "## Systems\n",
            "Flagged and missed: shares of the sentences; all else: of the flagged; 95 % Wilson intervals.\n",
            _figures(result["figures"]),
            "## Faults of the wrong releases\n",
            _faults(result["figures"]),
            "## Differences\n",
            _differences(result["differences"]),
        ]
    )


def _agreement(result: Result) -> str:
    found = result["agreement"]
    header = ["rows", "agree on accepting", "kappa", "agree on the word", "kappa", "differ", "open"]
    cells = [
        found["rows"],
        _percent(found["verdict"]),
        found["verdict_kappa"],
        _percent(found["rating"]),
        found["rating_kappa"],
        len(result["differing"]),
        len(result["open"]),
    ]
    return table(header, [cells])


def _figures(figures: list[Result]) -> str:
    actions = list(dict.fromkeys(action for each in figures for action in each["actions"]))
    header = [
        "system",
        "set",
        "n",
        "flagged",
        "missed",
        "accepted",
        "accepted, rewritable",
        "accepted, lossy",
    ]
    header += ["wrong", "turned", "hostile", *actions]
    rows = [
        [
            each["system"],
            each["name"],
            each["sentences"],
            *(
                _rate(each[name])
                for name in (
                    "flagged",
                    "missed",
                    "accepted",
                    "rewritable",
                    "lossy",
                    "wrong",
                    "turned",
                    "hostile",
                )
            ),
            *(_rate(each["actions"].get(action)) for action in actions),
        ]
        for each in figures
    ]
    return table(header, rows)


def _faults(figures: list[Result]) -> str:
    words = list(dict.fromkeys(word for each in figures for word in each["faults"]))
    if not words:
        return "None.\n"
    rows = [
        [each["system"], each["name"], *(each["faults"].get(word, 0) for word in words)] for each in figures
    ]
    return table(["system", "set", *words], rows)


def _differences(differences: list[Result]) -> str:
    if not differences:
        return "One system alone.\n"
    rows = [
        [
            f"{each['first']} - {each['second']}",
            each["name"],
            each["accepted"]["n"],
            _mean(each["accepted"]),
            _mean(each["wrong"]),
        ]
        for each in differences
    ]
    note = "Points of all sentences of the set, 95 % paired bootstrap intervals.\n\n"
    return note + table(["systems", "set", "n", "accepted", "wrong"], rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _rate(rate: Result | None) -> str:
    if rate is None:
        return "-"
    return f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"


def _mean(mean: Result) -> str:
    return f"{100 * mean['value']:+.1f} [{100 * mean['low']:+.1f}, {100 * mean['high']:+.1f}]"
