"""The page's part on rewrites of dev sentences: what evaluate select, gate, rewriter and acceptance found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guardrail_training.metrics.statistics import Mean
from guardrail_training.report.acceptance import Acceptance
from guardrail_training.report.drawing import shares
from guardrail_training.report.numbers import DASH, number, percent, with_interval
from guardrail_training.report.rewriting import Rewriting, RewritingSystem
from guardrail_training.report.tables import Cell, Figure, Table, table

__all__ = ["TITLES", "acceptance_table", "rewriting_figures", "rewriting_tables"]

TITLES = {
    "select": "Adapters that the run kept",
    "gate": "Alongside the adapter in use",
    "rewriter": "All systems",
}
SETS = {
    "all": "All sentences",
    "rewritten": "Sentences that were to be rewritten; masked or refused counts as toxic",
}


def rewriting_figures(found: Rewriting) -> Iterator[Figure]:
    """Bars over systems: non-toxic, SIM and J."""
    systems = next(iter(found.blocks.values()))
    low, high = min(each.n for each in systems), max(each.n for each in systems)
    counted = f"n = {high} sentences." if low == high else f"n = {low} to {high} sentences."
    bars: dict[str, tuple[str, list[Mean | float]]] = {
        "Non-toxic": (counted, [each.non_toxic for each in systems]),
        "SIM": (
            f"Mean cosine by {found.encoder}, {counted}",
            [each.similarity for each in systems],
        ),
        "J": (f"Against the first reference, {counted}", [each.joint for each in systems]),
    }
    names = [_name(each, found) for each in systems]
    chosen = [place for place, each in enumerate(systems) if each.name == found.chosen]
    for title, (caption, values) in bars.items():
        means = [value.value if isinstance(value, Mean) else value for value in values]
        yield Figure(
            title,
            shares(dict(zip(names, values, strict=True)), unit=title, marked=chosen),
            "; ".join(f"{name}: {number(mean)}" for name, mean in zip(names, means, strict=True)),
            caption,
        )


def rewriting_tables(found: Rewriting) -> list[Table]:
    """The systems' figures, a table for each set of sentences."""
    return [_table(systems, found, caption=SETS.get(name, name)) for name, systems in found.blocks.items()]


def _name(system: RewritingSystem, found: Rewriting) -> str:
    return f"{system.name}, best" if found.kind == "select" and system.name == found.chosen else system.name


def _table(systems: Sequence[RewritingSystem], found: Rewriting, *, caption: str) -> Table:
    rows: list[list[Cell | str]] = [
        [
            _name(each, found),
            number(each.n),
            with_interval(each.non_toxic),
            number(each.similarity),
            with_interval(each.joint),
            with_interval(each.joint_best),
        ]
        for each in systems
    ]
    header = ["system", "n", "non-toxic", "SIM", "J, first reference", "J, best reference"]
    return table(header, rows, caption=caption)


def acceptance_table(found: Acceptance) -> Table:
    """What readers accepted, by system and set."""
    rows: list[list[Cell | str]] = [
        [
            each.system,
            each.name,
            number(each.sentences),
            with_interval(each.accepted, show=_share),
            with_interval(each.wrong, show=_share),
            with_interval(each.missed, show=_share),
        ]
        for each in found.rows
    ]
    header = ["system", "set", "n", "accepted", "wrong releases", "missed"]
    kappa = DASH if found.kappa is None else f"{found.kappa:.2f}"
    caption = (
        f"What two readers accepted: shares of flagged sentences, missed of all, 95 % Wilson intervals; "
        f"kappa {kappa} over {found.read} rows"
    )
    return table(header, rows, caption=caption)


def _share(value: float | None) -> str:
    return percent(value).removeprefix("+")
