"""Measures judges, detectors and rewriters on the dev sets.

    python -m research evaluate WHAT --data DIR [--out DIR]

``judges``        how the two fixed judges do on ParaDetox
``detector``      ranking, flag rates, embedding, templates; with ``cross_source`` trainings without a source
``rewriter``      every row of the rewriting table, both blocks, random outputs in full; with ``also`` the
                  adapters of several methods side by side, in a table of their own
``checks``        what the guard's checks refuse of references and of rewrites spoilt on purpose
``select``        the best step-N adapter of one run by dev J
``annotate``      a blinded sheet for human rating, from the outputs that ``rewriter`` saved
``agreement``     agreement of two filled sheets

Each writes ``<out>/<WHAT>.json`` and ``.md`` with seed, versions, commit, and the sha256 of data and models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guardrail_training.data import load_paradetox
from guardrail_training.evaluation.acceptance.sheet import key_path
from guardrail_training.evaluation.systems import read_outputs
from guardrail_training.evaluation.tables import fill_card, rewriter_tables, sample_listing
from guardrail_training.provenance import plain, provenance
from guardrail_training.records import required_folder
from research.evaluation import checks as evaluate_checks
from research.evaluation import detector as evaluate_detector
from research.evaluation import rewriter as evaluate_rewriter
from research.evaluation.annotate import agreement, write_sheet
from research.evaluation.judges import load_judges, report_judge
from research.evaluation.settings import EvaluateSettings
from research.evaluation.tables import detector_tables, judge_table

__all__ = ["EvaluateSettings", "run"]


def run(settings: EvaluateSettings) -> Path:
    """Measures, writes JSON and Markdown, fills the card if one is named; returns the path of the JSON."""
    result = MEASURES[settings.what](settings)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{settings.what}.json"
    content = json.dumps(plain({**result, **provenance(settings)}), indent=1, allow_nan=False)
    path.write_text(content + "\n", encoding="utf-8")
    saved = json.loads(content)
    if settings.what in RENDERERS:
        tables, listing = RENDERERS[settings.what](saved), ""
        if "samples" in saved:
            title = f"### {len(saved['samples'])} random outputs of {saved['favourite']}"
            listing = f"\n{title}\n\n{sample_listing(saved)}"
        text = f"# Evaluation: {settings.what}\n\n{tables}{listing}"
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        if settings.card:
            fill_card(settings.card, name=settings.what, content=tables)
    return path


def _judges(settings: EvaluateSettings) -> Mapping[str, Any]:
    data = required_folder(settings.data)
    judges = load_judges(data)
    reports = {}
    for split in ("train", "dev"):
        rows = load_paradetox(data, split=split)
        toxic = [row.source for row in rows]
        neutral = [reference for row in rows for reference in row.references]
        reports[split] = [report_judge(judge, toxic=toxic, neutral=neutral) for judge in judges]
    return {"judges": reports}


def _detector(settings: EvaluateSettings) -> Mapping[str, Any]:
    return evaluate_detector.measurements(settings)


def _rewriter(settings: EvaluateSettings) -> Mapping[str, Any]:
    return evaluate_rewriter.measurements(settings)


def _checks(settings: EvaluateSettings) -> Mapping[str, Any]:
    return evaluate_checks.measurements(settings)


def _select(settings: EvaluateSettings) -> Mapping[str, Any]:
    return evaluate_rewriter.selection(settings)


def _annotate(settings: EvaluateSettings) -> Mapping[str, Any]:
    sheet = settings.sheets[0]
    systems = read_outputs(settings.outputs)
    key = write_sheet(sheet, systems, sentences=settings.samples, seed=settings.seed)
    return {"sheet": Path(sheet).name, "key": key.name, "systems": [system.name for system in systems]}


def _agreement(settings: EvaluateSettings) -> Mapping[str, Any]:
    first, second = settings.sheets
    return {"agreement": agreement(first, second, key=settings.key or key_path(first))}


MEASURES: Mapping[str, Callable[[EvaluateSettings], Mapping[str, Any]]] = {
    "judges": _judges,
    "detector": _detector,
    "rewriter": _rewriter,
    "checks": _checks,
    "select": _select,
    "annotate": _annotate,
    "agreement": _agreement,
}
RENDERERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "judges": judge_table,
    "detector": detector_tables,
    "rewriter": rewriter_tables,
    "checks": evaluate_checks.checks_tables,
}
