"""One page about a run, whole in itself: no script, no outside resource, and a policy that forbids both."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from guardrail.errors import MissingExtraError
from guardrail_training.report.charts import charts_of
from guardrail_training.report.numbers import duration, number
from guardrail_training.report.rewrites import TITLES, acceptance_table, rewriting_figures, rewriting_tables
from guardrail_training.report.rewriting import Rewriting
from guardrail_training.report.run import Generation, ReportedRun
from guardrail_training.report.samples import (
    WORST,
    changes_table,
    models_table,
    sample_figures,
    samples_table,
    sorted_by_difference,
    worst_cases,
)
from guardrail_training.report.tables import Cell, Table, table
from guardrail_training.report.training import chart_figure, dev_note, figures_as_numbers, losses_by_steps

__all__ = ["page_of", "template"]

HERE = Path(__file__).parent
TILES = {
    "dev_loss": "dev loss",
    "loss": "loss",
    "ppo/mean_scores": "reward",
    "objective/kl": "KL, nats",
    "ppo/returns/mean": "returns",
    "rewards/accuracies": "preference accuracy",
    "tokens/responses_len_mean": "tokens in a response",
}
APART = ("command", "seconds")
"""Facts that stand elsewhere on the page, in a form of their own."""


def page_of(run: ReportedRun, *, rows: int) -> bytes:
    """The page in UTF-8; at most ``rows`` samples are in its table.

    What UTF-8 cannot hold (lone surrogates) becomes a question mark.
    """
    style = (HERE / "page.css").read_text(encoding="utf-8")
    known, others = charts_of(run.series)
    html: str = template("page.html").render(
        title=f"Run {run.name}",
        style=style,
        policy=_policy(style),
        summary=_summary(run),
        tiles=list(_tiles(run)),
        charts=[chart_figure(chart, run) for chart in known],
        other_charts=[chart_figure(chart, run) for chart in others],
        losses=losses_by_steps(run),
        numbers=figures_as_numbers(run),
        rewriting=[_rewriting(found) for found in run.rewriting],
        acceptance=acceptance_table(run.acceptance) if run.acceptance else None,
        samples=_samples(run.generation, rows=rows) if run.generation else None,
        command=run.facts.get("command"),
        hashes=_hashes(run),
        origins=[
            {"title": f"sha256 of data and models of evaluate {each.kind}", "table": _origin(each)}
            for each in run.rewriting
        ],
        settings=_values(run.settings, header=("setting", "value"), caption="Settings of the run"),
        facts=_facts(run),
    )
    return html.encode("utf-8", "replace")


def template(name: str) -> Any:
    """A template of this package, everything that it is given escaped."""
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError(feature="a report", extra="train") from error
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _policy(style: str) -> str:
    """Nothing but the page's own style sheet, known by its digest, and the drawings that are part of it."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _summary(run: ReportedRun) -> str:
    taken = f"step {run.step}" if run.steps is None else f"step {run.step} of {run.steps}"
    seed = run.settings.get("seed")
    parts = [taken, f"seed {seed}" if seed is not None else "", f"commit {run.git[:12]}" if run.git else ""]
    parts.append(str(run.facts.get("processor") or ""))
    return ", ".join(part for part in parts if part)


def _tiles(run: ReportedRun) -> Iterator[dict[str, str]]:
    """First and last of the figures that a reader looks for first, then time and speed."""
    for name, title in TILES.items():
        if series := run.series.get(name):
            note = ""
            if name == "dev_loss":
                error = run.series.get("dev_loss_error")
                note = (f"± {number(error.values[-1])} (95 %), " if error else "") + dev_note(run)
            value = f"{number(series.values[0])} → {number(series.values[-1])}"
            yield {"title": title, "value": value, "note": note}
    if isinstance(run.facts.get("seconds"), (int, float)):
        yield {"title": "duration", "value": duration(run.facts["seconds"]), "note": ""}
    if speed := run.tokens_per_second:
        yield {"title": "tokens per second", "value": number(speed), "note": "of training steps"}


def _rewriting(found: Rewriting) -> dict[str, Any]:
    return {
        "title": TITLES[found.kind],
        "reason": found.reason,
        "figures": list(rewriting_figures(found)),
        "tables": rewriting_tables(found),
    }


def _samples(generation: Generation, *, rows: int) -> dict[str, Any]:
    """Everything that ``evaluate generation`` found; at most ``rows`` samples."""
    comparison, samples = generation.comparison, generation.samples
    shown, count = sorted_by_difference(generation)[:rows], len(samples)
    return {
        "introduction": (
            f"{comparison.systems[0].n} prompts of {', '.join(comparison.data)}; one sampled response of "
            f"each model to each, all with the same noise (seed {comparison.seed}). Brackets hold 95 % "
            "bootstrap intervals over prompts."
        ),
        "reward": comparison.reward,
        "models": models_table(comparison),
        "changes": changes_table(comparison),
        "figures": list(sample_figures(generation)),
        "tables": [
            {
                "title": f"Samples by difference in reward ({len(shown)} of {count})",
                "table": samples_table(
                    shown,
                    generation,
                    caption="Greatest gain first; toxicity by the judge that finds most",
                ),
            },
            {
                "title": f"The {min(WORST, count)} worst cases: lowest reward after training",
                "table": samples_table(
                    worst_cases(generation),
                    generation,
                    caption="Lowest reward first; toxicity by the judge that finds most",
                ),
            },
        ],
    }


def _facts(run: ReportedRun) -> list[Table]:
    facts = {
        name: value for name, value in run.facts.items() if not isinstance(value, dict) and name not in APART
    }
    seeds, commits = {"run": run.settings.get("seed")}, {"run": run.git}
    if run.generation is not None:
        seeds["samples"] = run.generation.comparison.seed
        commits["samples"] = run.generation.comparison.git
    for found in run.rewriting:
        seeds[f"rewrites, {found.kind}"], commits[f"rewrites, {found.kind}"] = found.seed, found.git
    return [
        _values(commits, header=("part", "commit"), caption="Sources"),
        _values(seeds, header=("part", "seed"), caption="Seeds"),
        _values(run.versions, header=("package", "version"), caption="Versions"),
        _values(facts, header=("fact", "value"), caption="What the run noted of itself"),
    ]


def _hashes(run: ReportedRun) -> Table:
    """What the run read and made; folders are left out of names, they are those of one machine."""
    found: list[tuple[str, str, Any]] = []
    for name, value in run.facts.items():
        if isinstance(value, dict):
            found += [(name.removesuffix("_sha256"), str(key), digest) for key, digest in value.items()]
    found += [("starting adapter", *pair) for pair in run.start_sha256.items()]
    if run.manifest is not None:
        found += [("training data", str(each.get("name")), each.get("sha256")) for each in run.manifest.data]
        found += [("last adapter", name, digest) for name, digest in run.manifest.files.items()]
        found.append(("base", "trained on", run.manifest.trained_on))
    if run.generation is not None:
        comparison = run.generation.comparison
        found += [("prompts of samples", *pair) for pair in comparison.data.items()]
        for model, files in comparison.models.items():
            found += [(f"samples, {model}", *pair) for pair in files.items()]
    caption = "sha256 of data and models" if found else "No hashes: the run has not kept an adapter yet"
    return _digests(found, caption=caption)


def _origin(measured: Rewriting) -> Table:
    """What an evaluation of rewriting read."""
    found: list[tuple[str, str, Any]] = [("data", *pair) for pair in measured.data.items()]
    for model, files in measured.models.items():
        found += [(model, *pair) for pair in files.items()]
    return _digests(found, caption=f"What evaluate {measured.kind} read")


def _digests(found: Iterable[tuple[str, str, Any]], *, caption: str) -> Table:
    rows: list[list[Cell | str]] = [
        [part, name, Cell(str(digest or "unknown"), kind="code")] for part, name, digest in found
    ]
    return table(["part", "file", "sha256"], rows, caption=caption)


def _values(values: Mapping[str, Any], *, header: tuple[str, str], caption: str) -> Table:
    rows: list[list[Cell | str]] = [
        [name, Cell(_value(value), kind="code")] for name, value in values.items()
    ]
    return table(header, rows, caption=caption)


def _value(value: Any) -> str:
    if isinstance(value, str):
        # A path is one machine's own; its last part says what was meant.
        return PurePath(value).name if PurePath(value).is_absolute() else value
    return json.dumps(value, ensure_ascii=False)
