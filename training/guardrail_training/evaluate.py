"""Measures judges, detectors and rewriters on the dev sets.

    guardrail-train evaluate WHAT --data DIR [--out DIR]

``judges``        how the two fixed judges do on ParaDetox
``detector``      ranking, flag rates, embedding, templates; with ``cross_source`` trainings without a source
``rewriter``      every row of the rewriting table, both blocks, random outputs in full
``select``        the best step-N adapter of a run by dev J
``annotate``      a blinded sheet for human rating, from the outputs that ``rewriter`` saved
``agreement``     agreement of two filled sheets

Each writes ``<out>/<WHAT>.json`` and ``.md`` with seed, versions, commit, and the sha256 of data and models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError
from guardrail_training import evaluate_detector, evaluate_rewriter
from guardrail_training.annotate import agreement, key_path, write_sheet
from guardrail_training.data import load_paradetox
from guardrail_training.evaluation_sets import data_folder
from guardrail_training.judges import load_judges, report_judge
from guardrail_training.provenance import plain, provenance
from guardrail_training.systems import read_outputs
from guardrail_training.tables import detector_tables, fill_card, judge_table, rewriter_tables, sample_listing

__all__ = ["EvaluateSettings", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """What to measure, on what, with what. Models are names that ``guardrail models`` knows, or folders.

    what          judges, detector, rewriter, select, annotate or agreement
    data          folder of the sources; GUARDRAIL_DATA if empty
    out           where the JSON and Markdown go
    outputs       file of system outputs: written by ``rewriter``, read by ``annotate``
    seed          of bootstraps, samples, obfuscation and sheets
    limit         only the first so many dev sentences of the rewriting table, 0: all (a smoke run)
    samples       random outputs printed in full; sentences of an annotation sheet
    base          base of the rewriter
    adapter       adapter folder, empty: the shipped one
    pilot         adapter folder of the pilot's recipe; the row is left out if empty
    detector      detector folder, empty: the shipped one
    encoder       encoder of SIM and J
    original      the original MiniLM, whose tokenizer file ``encoder`` shares
    perplexity    measure the perplexity ratio under the base (the slowest of the measures)
    cross_source  train detectors without a source and test on it (up to 15 minutes each)
    runs          folder of trainings for ``cross_source``
    checkpoints   run folder with step-N adapters, for ``select``
    sheets        the sheet to write, or the two filled sheets to compare
    key           the key of the compared sheets, empty: beside the first one
    card          model card whose marked block is filled with the tables
    threads       of torch and onnxruntime
    """

    what: str
    data: str = ""
    out: str = "training/results"
    outputs: str = "runs/evaluate/outputs.jsonl"
    seed: int = 13
    limit: int = 0
    samples: int = 40
    base: str = "smollm2-135m-instruct"
    adapter: str = ""
    pilot: str = ""
    detector: str = ""
    encoder: str = "paraphrase-minilm-l3"
    original: str = "minilm-l6-v2"
    perplexity: bool = True
    cross_source: bool = False
    runs: str = "runs/cross-source"
    checkpoints: str = ""
    sheets: tuple[str, ...] = ()
    key: str = ""
    card: str = ""
    threads: int = 2

    def __post_init__(self) -> None:
        if self.what not in MEASUREMENTS:
            raise ConfigError(f"evaluate what must be one of {', '.join(MEASUREMENTS)}, got {self.what!r}")
        if self.limit < 0 or self.samples < 1 or self.threads < 1:
            raise ConfigError("evaluate needs limit of 0 or more, and samples and threads of 1 or more")
        wanted = {"annotate": 1, "agreement": 2}.get(self.what)
        if wanted is not None and len(self.sheets) != wanted:
            raise ConfigError(f"evaluate {self.what} needs {wanted} in sheets, got {len(self.sheets)}")
        if self.what == "select" and not self.checkpoints:
            raise ConfigError("evaluate select needs checkpoints: the folder of an sft run")


def run(settings: EvaluateSettings) -> Path:
    """Measures, writes JSON and Markdown, fills the card if one is named; returns the path of the JSON."""
    result = MEASUREMENTS[settings.what](settings)
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
    data = data_folder(settings.data)
    judges = load_judges(data)
    reports = {}
    for split in ("train", "dev"):
        rows = load_paradetox(data, split=split)
        toxic = [row.toxic for row in rows]
        neutral = [reference for row in rows for reference in row.neutral]
        reports[split] = [report_judge(judge, toxic=toxic, neutral=neutral) for judge in judges]
    return {"judges": reports}


def _detector(settings: EvaluateSettings) -> Mapping[str, Any]:
    return evaluate_detector.measurements(settings)


def _rewriter(settings: EvaluateSettings) -> Mapping[str, Any]:
    return evaluate_rewriter.measurements(settings)


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


MEASUREMENTS: Mapping[str, Callable[[EvaluateSettings], Mapping[str, Any]]] = {
    "judges": _judges,
    "detector": _detector,
    "rewriter": _rewriter,
    "select": _select,
    "annotate": _annotate,
    "agreement": _agreement,
}
RENDERERS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "judges": judge_table,
    "detector": detector_tables,
    "rewriter": rewriter_tables,
}
