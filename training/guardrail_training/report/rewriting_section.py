"""The page's part on rewrites of dev sentences: what evaluate select, gate and rewriter found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from guardrail_training.metrics.statistics import Mean
from guardrail_training.report.drawing import shares
from guardrail_training.report.markup import Element, Node, element, table
from guardrail_training.report.numbers import number, with_interval
from guardrail_training.report.rewriting import Rewriting, System
from guardrail_training.report.training_section import figure_of

__all__ = ["rewriting_section"]

TITLES = {
    "select": "Adapters that the run kept",
    "gate": "Beside the adapter in use",
    "rewriter": "All systems",
}
SETS = {
    "all": "All sentences",
    "rewritten": "Sentences that were to be rewritten; masked or refused counts as toxic",
}
MEASURES = (
    "Non-toxic (STA) is the share of outputs that a judge calls clean, SIM the closeness of meaning to the "
    "source, J the mean of STA times SIM times chrF. Of the two judges the one that gives the lower figure "
    "counts. Brackets and lines are 95 % bootstrap intervals over sentences; SIM has none."
)


def rewriting_section(found: Sequence[Rewriting]) -> Element:
    """Bars over systems for every evaluation, and their figures as tables."""
    section = element(
        "section", element("h2", "Rewrites of dev sentences", id="rewrites"), element("p", MEASURES)
    )
    for place, each in enumerate(found):
        section.append(element("h3", TITLES[each.kind]))
        section.append(element("div", *_figures(each, key=f"rewrites-{place}"), class_="charts"))
        section.extend(
            _table(systems, each, caption=SETS.get(name, name)) for name, systems in each.blocks.items()
        )
    return section


def _figures(found: Rewriting, *, key: str) -> Iterator[Element]:
    systems = next(iter(found.blocks.values()))
    least, most = min(each.n for each in systems), max(each.n for each in systems)
    counted = f"{most}" if least == most else f"{least} to {most}"
    bars: dict[str, tuple[str, list[Mean | float]]] = {
        "Non-toxic": (f"Of {counted} sentences.", [each.non_toxic for each in systems]),
        "SIM": (f"Mean cosine by {found.encoder}.", [each.similarity for each in systems]),
        "J": ("Against the first reference.", [each.joint for each in systems]),
    }
    names = [_name(each, found) for each in systems]
    chosen = [place for place, each in enumerate(systems) if each.name == found.chosen]
    for place, (title, (caption, values)) in enumerate(bars.items()):
        means = [value.value if isinstance(value, Mean) else value for value in values]
        yield figure_of(
            shares(dict(zip(names, values, strict=True)), unit=title, marked=chosen),
            key=f"{key}-{place}",
            title=title,
            says="; ".join(f"{name}: {number(mean)}" for name, mean in zip(names, means, strict=True)),
            caption=[caption],
        )


def _name(system: System, found: Rewriting) -> str:
    return f"{system.name}, best" if found.kind == "select" and system.name == found.chosen else system.name


def _table(systems: Sequence[System], found: Rewriting, *, caption: str) -> Element:
    rows: list[list[Node]] = [
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
