"""The page's part on what the model writes before and after: models, histograms, every sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from guardrail_training.evaluation.generation.comparison import Comparison, System
from guardrail_training.evaluation.generation.measures import Figure
from guardrail_training.evaluation.generation.samples import Output, Sample
from guardrail_training.metrics.statistics import Mean
from guardrail_training.report.drawing import bars, histogram
from guardrail_training.report.markup import Element, Node, element, folded, table
from guardrail_training.report.numbers import number, percent, signed, with_interval
from guardrail_training.report.run import Generation
from guardrail_training.report.training_section import figure_of

__all__ = ["WORST", "samples_section", "sorted_by_difference", "worst_cases"]

WORST = 10
MISSING = "No samples have been taken of this run, so nothing can be said of its texts. Take them with "
COMMAND = (
    "guardrail-train evaluate generation --checkpoints RUN --data DIR --set prompts=FILE --set field=NAME"
)
WARNING = "The texts below are model output and data as they are. Expect toxic and hurtful language."


def samples_section(generation: Generation | None, *, rows: int) -> Element:
    """Everything that ``evaluate generation`` found; at most ``rows`` samples, their texts folded away."""
    heading = element("h2", "Before and after", id="samples")
    if generation is None:
        return element("section", heading, element("p", MISSING, element("code", COMMAND), "."))
    comparison, samples = generation.comparison, generation.samples
    return element(
        "section",
        heading,
        element("p", _introduction(comparison)),
        element("p", "Reward: ", element("code", comparison.reward)),
        _models_table(comparison),
        _changes_table(comparison),
        element("div", *_figures(generation), class_="charts"),
        element("h3", "Samples"),
        element("p", WARNING, class_="warning"),
        folded(
            f"Samples by difference in reward ({min(rows, len(samples))} of {len(samples)})",
            _samples_table(
                sorted_by_difference(generation)[:rows],
                generation,
                caption="Greatest gain first; toxicity by the judge that finds most",
            ),
        ),
        folded(
            f"The {min(WORST, len(samples))} worst cases: lowest reward after training",
            _samples_table(
                worst_cases(generation),
                generation,
                caption="Lowest reward first; toxicity by the judge that finds most",
            ),
        ),
    )


def sorted_by_difference(generation: Generation) -> list[Sample]:
    """The samples, greatest gain in reward first; the order of the file among equals."""
    return sorted(generation.samples, key=generation.difference, reverse=True)


def worst_cases(generation: Generation) -> list[Sample]:
    """The ten samples with the lowest reward after training, lowest first."""
    after = generation.comparison.after
    return sorted(generation.samples, key=lambda sample: sample.outputs[after].reward)[:WORST]


def _introduction(comparison: Comparison) -> str:
    return (
        f"{comparison.systems[0].n} prompts of {', '.join(comparison.data)}; one sampled response of each "
        f"model to each, all with the same noise (seed {comparison.seed}). Brackets hold 95 % bootstrap "
        "intervals over prompts."
    )


def _models_table(comparison: Comparison) -> Element:
    first = comparison.systems[0]
    header = ["model", "n", "reward"]
    header += [part for judge in first.toxicity for part in (f"toxicity, {judge}", "its std")]
    header += [*map(_overlap_title, first.rouge), "tokens", "ended"]
    rows = [_model_row(system) for system in comparison.systems]
    return table(header, rows, caption="Each model's means; of toxicity the standard deviation too")


def _model_row(system: System) -> list[Node]:
    row: list[Node] = [system.title, number(system.n), with_interval(system.reward.mean)]
    for figure in system.toxicity.values():
        row += [with_interval(figure.mean), number(figure.std)]
    row += [with_interval(mean) for mean in system.rouge.values()]
    return [*row, with_interval(system.tokens.mean), number(system.ended)]


def _changes_table(comparison: Comparison) -> Element:
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


def _figures(generation: Generation) -> list[Element]:
    systems = generation.comparison.systems
    shown = [_bars("Toxicity", {each.title: _means(each.toxicity) for each in systems}, key="bars-toxicity")]
    if systems[0].rouge:
        overlaps = {
            each.title: {_overlap_title(name): mean for name, mean in each.rouge.items()} for each in systems
        }
        shown.append(_bars("ROUGE", overlaps, key="bars-rouge"))
    rewards = {each.title: {"reward": each.reward.mean, **each.terms} for each in systems}
    shown.append(_bars("Reward and its terms", rewards, key="bars-reward"))
    # Before and after keep the colours that they have among the bars.
    colour = [system.name for system in systems].index(generation.comparison.before)
    for place, judge in enumerate(systems[0].toxicity):
        values = _of_pair(generation, partial(_toxicity_by, judge))
        shown.append(
            _histogram(
                f"Toxicity by {judge}", values, unit="toxicity", colour=colour, key=f"toxicity-{place}"
            )
        )
    values = _of_pair(generation, lambda output: float(output.tokens))
    return [*shown, _histogram("Length of responses", values, unit="tokens", colour=colour, key="lengths")]


def _means(figures: Mapping[str, Figure]) -> dict[str, Mean]:
    return {name: figure.mean for name, figure in figures.items()}


def _toxicity_by(judge: str, output: Output) -> float:
    return output.toxicity[judge]


def _of_pair(generation: Generation, value: Callable[[Output], float]) -> dict[str, list[float]]:
    """A value of every response before and after, by the titles of the models."""
    titles = {system.name: system.title for system in generation.comparison.systems}
    return {
        titles[name]: [value(sample.outputs[name]) for sample in generation.samples]
        for name in generation.comparison.pair
    }


def _histogram(
    title: str, values: Mapping[str, Sequence[float]], *, unit: str, colour: int, key: str
) -> Element:
    every = [value for each in values.values() for value in each]
    before, after = (number(sum(each) / len(each)) for each in values.values())
    caption = f"Mean before {before}, after {after}."
    bounds = (min(0.0, *every), max(1.0, *every))
    drawing = histogram(values, unit=unit, bounds=bounds, first_colour=colour)
    return figure_of(drawing, key=key, title=title, says=caption, caption=[caption])


def _bars(title: str, models: Mapping[str, Mapping[str, Mean]], *, key: str) -> Element:
    says = "; ".join(
        f"{name}: " + ", ".join(f"{each} {number(mean.value)}" for each, mean in means.items())
        for name, means in models.items()
    )
    return figure_of(bars(models), key=key, title=title, says=says, caption=["Lines are 95 % intervals."])


def _samples_table(samples: Sequence[Sample], generation: Generation, *, caption: str) -> Element:
    """Before and after side by side; what the bare base wrote before both is left to the file."""
    before, after = generation.comparison.pair
    has_references = any(sample.references for sample in samples)
    header = ["row", "query", "before", "after", "reward before", "reward after", "difference"]
    header += ["toxicity before", "toxicity after", *(["reference"] if has_references else [])]
    rows: list[list[Node]] = []
    for sample in samples:
        first, last = sample.outputs[before], sample.outputs[after]
        row: list[Node] = [str(sample.row), *map(_said, (sample.query, first.response, last.response))]
        row += [number(first.reward), number(last.reward), signed(generation.difference(sample))]
        row += [number(max(first.toxicity.values())), number(max(last.toxicity.values()))]
        row += [_said(sample.references[0] if sample.references else "")] if has_references else []
        rows.append(row)
    return table(header, rows, caption=caption)


def _said(text: str) -> Element:
    """A text as it is; an isolated direction, so that its marks do not turn the page around it."""
    return element("span", text, class_="said", dir="auto")
