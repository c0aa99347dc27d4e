"""The page's part on what the model writes before and after: models, histograms, every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from guardrail_training.evaluation.generation.comparison import GenerationComparison, GenerationSystem
from guardrail_training.evaluation.generation.samples import Sample, SampledResponse
from guardrail_training.metrics.statistics import Mean
from guardrail_training.report.drawing import bars, histogram
from guardrail_training.report.numbers import number, percent, signed, with_interval
from guardrail_training.report.run import Generation
from guardrail_training.report.tables import Cell, Figure, Table, table

__all__ = [
    "WORST",
    "changes_table",
    "models_table",
    "sample_figures",
    "samples_table",
    "sorted_by_difference",
    "worst_cases",
]

WORST = 10


def sorted_by_difference(generation: Generation) -> list[Sample]:
    """The samples, greatest gain in reward first; the order of the file among equals."""
    return sorted(generation.samples, key=generation.difference, reverse=True)


def worst_cases(generation: Generation) -> list[Sample]:
    """The ten samples with the lowest reward after training, lowest first."""
    after = generation.comparison.after
    return sorted(generation.samples, key=lambda sample: sample.outputs[after].reward)[:WORST]


def models_table(comparison: GenerationComparison) -> Table:
    """Each model's means with intervals."""
    first = comparison.systems[0]
    header = ["model", "n", "reward"]
    header += [part for judge in first.toxicity for part in (f"toxicity, {judge}", "its std")]
    header += [*map(_overlap_title, first.rouge), "tokens", "ended"]
    rows = [_model_row(system) for system in comparison.systems]
    return table(header, rows, caption="Each model's means; of toxicity the standard deviation too")


def _model_row(system: GenerationSystem) -> list[Cell | str]:
    row: list[Cell | str] = [system.title, number(system.n), with_interval(system.reward.mean)]
    for figure in system.toxicity.values():
        row += [with_interval(figure.mean), number(figure.std)]
    row += [with_interval(mean) for mean in system.rouge.values()]
    return [*row, with_interval(system.tokens.mean), number(system.ended)]


def changes_table(comparison: GenerationComparison) -> Table:
    """How toxicity changed by each judge."""
    rows = [
        [
            judge,
            with_interval(change.mean, show=percent),
            with_interval(change.std, show=percent),
            "yes" if judge == comparison.counted else "",
        ]
        for judge, change in comparison.changes.items()
    ]
    header = ["judge", "mean toxicity", "its std", "counts"]
    caption = "Relative change from before to after; the judge by which toxicity fell least counts"
    return table(header, rows, caption=caption)


def _overlap_title(name: str) -> str:
    return name.replace("rouge", "ROUGE-")


def sample_figures(generation: Generation) -> Iterator[Figure]:
    """Bars over models, then histograms of the pair before and after."""
    systems = generation.comparison.systems
    yield _bars("Toxicity", {each.title: _means(each) for each in systems})
    if systems[0].rouge:
        overlaps = {
            each.title: {_overlap_title(name): mean for name, mean in each.rouge.items()} for each in systems
        }
        yield _bars("Closeness to the references", overlaps)
    yield _bars(
        "Reward and its terms",
        {each.title: {"reward": each.reward.mean, **each.terms} for each in systems},
    )
    # Before and after keep the colours that they have among the bars.
    colour = [system.name for system in systems].index(generation.comparison.before)
    for judge in systems[0].toxicity:
        values = _of_pair(generation, partial(_toxicity_by, judge))
        yield _histogram(f"Toxicity by {judge}", values, unit="toxicity", colour=colour)
    values = _of_pair(generation, lambda output: float(output.tokens))
    yield _histogram("Length of responses", values, unit="tokens", colour=colour)


def _means(system: GenerationSystem) -> dict[str, Mean]:
    return {name: figure.mean for name, figure in system.toxicity.items()}


def _toxicity_by(judge: str, output: SampledResponse) -> float:
    return output.toxicity[judge]


def _of_pair(generation: Generation, value: Callable[[SampledResponse], float]) -> dict[str, list[float]]:
    """A value of every response before and after, by the titles of the models."""
    titles = {system.name: system.title for system in generation.comparison.systems}
    return {
        titles[name]: [value(sample.outputs[name]) for sample in generation.samples]
        for name in generation.comparison.pair
    }


def _histogram(title: str, values: Mapping[str, Sequence[float]], *, unit: str, colour: int) -> Figure:
    every = [value for each in values.values() for value in each]
    before, after = (number(sum(each) / len(each)) for each in values.values())
    says = f"Mean before {before}, after {after}, n = {len(every) // 2} each."
    bounds = (min(0.0, *every), max(1.0, *every))
    drawing = histogram(values, unit=unit, bounds=bounds, first_colour=colour)
    return Figure(title, drawing, says, says)


def _bars(title: str, models: Mapping[str, Mapping[str, Mean]]) -> Figure:
    says = "; ".join(
        f"{name}: " + ", ".join(f"{each} {number(mean.value)}" for each, mean in means.items())
        for name, means in models.items()
    )
    n = next(iter(next(iter(models.values())).values())).n
    return Figure(title, bars(models), says, f"Lines are 95 % intervals, n = {n}.")


def samples_table(samples: Sequence[Sample], generation: Generation, *, caption: str) -> Table:
    """Before and after side by side; what the bare base wrote before both is left to the file."""
    before, after = generation.comparison.pair
    has_references = any(sample.references for sample in samples)
    header = ["row", "query", "before", "after", "reward before", "reward after", "difference"]
    header += ["toxicity before", "toxicity after", *(["reference"] if has_references else [])]
    rows: list[list[Cell | str]] = []
    for sample in samples:
        first, last = sample.outputs[before], sample.outputs[after]
        row: list[Cell | str] = [str(sample.row)]
        row += [_said(text) for text in (sample.query, first.response, last.response)]
        row += [number(first.reward), number(last.reward), signed(generation.difference(sample))]
        row += [number(max(first.toxicity.values())), number(max(last.toxicity.values()))]
        row += [_said(sample.references[0] if sample.references else "")] if has_references else []
        rows.append(row)
    return table(header, rows, caption=caption)


def _said(text: str) -> Cell:
    return Cell(text, kind="said")
