"""One page about a run, whole in itself: no script, no outside resource, and a policy that forbids both."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from guardrail_training.report.markup import Element, Node, element, folded, list_of, table, written
from guardrail_training.report.numbers import number
from guardrail_training.report.rewriting import Rewriting
from guardrail_training.report.rewriting_section import rewriting_section
from guardrail_training.report.run import Run
from guardrail_training.report.samples_section import samples_section
from guardrail_training.report.training_section import training_section

__all__ = ["page_of"]

STYLE = Path(__file__).with_name("page.css")
TILES = {
    "dev_loss": "dev loss",
    "loss": "loss",
    "ppo/mean_scores": "reward",
    "objective/kl": "KL, nats",
    "ppo/returns/mean": "returns",
    "rewards/accuracies": "preference accuracy",
    "tokens/responses_len_mean": "tokens in a response",
}
PARTS = {
    "training": "Training",
    "rewrites": "Rewrites",
    "samples": "Before and after",
    "reproduction": "How to repeat it",
}


def page_of(run: Run, *, rows: int) -> bytes:
    """The page in UTF-8; at most ``rows`` samples are in its table."""
    style = STYLE.read_text(encoding="utf-8")
    title = f"Run {run.name}"
    parts = {part: name for part, name in PARTS.items() if part != "rewrites" or run.rewriting}
    links = (element("li", element("a", name, href=f"#{part}")) for part, name in parts.items())
    body = element(
        "body",
        element(
            "header",
            element("h1", title),
            element("p", _summary(run), class_="soft"),
            element("nav", element("ul", *links), aria_label="Parts of the page"),
        ),
        element(
            "main",
            _tiles(run),
            training_section(run),
            rewriting_section(run.rewriting) if run.rewriting else None,
            samples_section(run.generation, rows=rows),
            _reproduction(run),
        ),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", style),
    )
    return written(element("html", head, body, lang="en"))


def _policy(style: str) -> str:
    """Nothing but the page's own style sheet, known by its digest."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _summary(run: Run) -> str:
    taken = f"step {run.step}" if run.steps is None else f"step {run.step} of {run.steps}"
    seed = run.settings.get("seed")
    parts = [taken, f"seed {seed}" if seed is not None else "", f"commit {run.git[:12]}" if run.git else ""]
    return ", ".join(part for part in parts if part)


def _tiles(run: Run) -> Element:
    """First and last of the figures that a reader looks for first."""
    pairs = []
    for name, title in TILES.items():
        if series := run.series.get(name):
            pairs.append((title, f"{number(series.values[0])} → {number(series.values[-1])}"))
    found = list_of(pairs)
    found.set("class", "tiles")
    return found


def _reproduction(run: Run) -> Element:
    facts = {name: value for name, value in run.facts.items() if not isinstance(value, dict)}
    seeds, commits = {"run": run.settings.get("seed")}, {"run": run.git}
    if run.generation is not None:
        seeds["samples"] = run.generation.comparison.seed
        commits["samples"] = run.generation.comparison.git
    for found in run.rewriting:
        seeds[f"rewrites, {found.kind}"], commits[f"rewrites, {found.kind}"] = found.seed, found.git
    return element(
        "section",
        element("h2", PARTS["reproduction"], id="reproduction"),
        _hashes(run),
        *(
            folded(f"sha256 of data and models of evaluate {each.kind}", _origin(each))
            for each in run.rewriting
        ),
        element(
            "div",
            _values(run.settings, header=("setting", "value"), caption="Settings of the run"),
            element(
                "div",
                _values(commits, header=("part", "commit"), caption="Sources"),
                _values(seeds, header=("part", "seed"), caption="Seeds"),
                _values(run.versions, header=("package", "version"), caption="Versions"),
                _values(facts, header=("fact", "value"), caption="What the run noted of itself"),
            ),
            class_="side-by-side",
        ),
    )


def _hashes(run: Run) -> Element:
    """What the run read and made; folders are left out of names, they are those of one machine."""
    found: list[tuple[str, str, Any]] = []
    for name, value in run.facts.items():
        if isinstance(value, dict):
            found += [(name.removesuffix("_sha256"), str(key), digest) for key, digest in value.items()]
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


def _origin(measured: Rewriting) -> Element:
    """What an evaluation of rewriting read."""
    found: list[tuple[str, str, Any]] = [("data", *pair) for pair in measured.data.items()]
    for model, files in measured.models.items():
        found += [(model, *pair) for pair in files.items()]
    return _digests(found, caption=f"What evaluate {measured.kind} read")


def _digests(found: Iterable[tuple[str, str, Any]], *, caption: str) -> Element:
    rows: Iterable[list[Node]] = (
        [part, name, element("code", str(digest or "unknown"))] for part, name, digest in found
    )
    return table(["part", "file", "sha256"], rows, caption=caption)


def _values(values: Mapping[str, Any], *, header: tuple[str, str], caption: str) -> Element:
    rows: Iterable[list[Node]] = ([name, element("code", _value(value))] for name, value in values.items())
    return table(header, rows, caption=caption)


def _value(value: Any) -> str:
    if isinstance(value, str):
        # A path is one machine's own; its last part says what was meant.
        return PurePath(value).name if PurePath(value).is_absolute() else value
    return json.dumps(value, ensure_ascii=False)
