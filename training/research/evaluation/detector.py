"""The detector's measurements, from settings to figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from guardrail.policy import USES
from guardrail.protocols import Detector
from guardrail_training.evaluation.similarity import MiniLm
from guardrail_training.provenance import SHIPPED, model_folder
from guardrail_training.records import read_records, required_folder
from research.detection.corpora import Labelled
from research.detection.dev_sets import (
    NEUTRAL_SIDE,
    clean_sets,
    dev_texts,
    labelled_sets,
    sentence_pairs,
    toxic_sets,
)
from research.detection.dev_tasks import dev_tasks, everyday_by_severity, measured_sets
from research.detection.measures import flag_rates, rank_sets, span_f1, task_figures
from research.evaluation.cross_source import cross_source
from research.evaluation.detection_report import (
    embedding_correlation,
    judged_clean,
    pooled_rankings,
    template_set,
)
from research.evaluation.judges import load_judges
from research.evaluation.settings import EvaluateSettings

__all__ = ["measurements"]

PAIRS = 2000
RELATED = {"random": 0.0, "two in five a toxic sentence and its neutral version": 0.4}
TEMPLATES_HELD_OUT = 0.1  # as detector training holds them out


def measurements(settings: EvaluateSettings) -> dict[str, Any]:
    """Rankings, flag rates, embedding and template figures; cross-source ones if asked for."""
    from guardrail.detectors.onnx import OnnxDetector

    data = required_folder(settings.data)
    detector = OnnxDetector(settings.detector or SHIPPED / "detector", threads=settings.threads)
    threshold = float(detector.manifest.threshold or 0.0)
    texts = dev_texts(data)
    sets = labelled_sets(texts)
    templates = template_set(texts, held_out=TEMPLATES_HELD_OUT, seed=settings.seed)
    original = MiniLm(model_folder(settings.original))
    toxic, clean = toxic_sets(texts, seed=settings.seed), _clean_sets(texts, data)
    everyday = everyday_by_severity(data)
    hostile = {name: rows for name, rows in everyday.items() if "hostile" in name}
    harmless = {name: rows for name, rows in everyday.items() if "hostile" not in name}
    hostile.update(measured_sets(hostile=True))
    harmless.update(measured_sets(hostile=False))
    return {
        "threshold": threshold,
        "rankings": rank_sets(detector, sets, threshold=threshold),
        "tasks": [task_figures(detector, task, seed=settings.seed) for task in dev_tasks(data)],
        "rates": {
            use: {
                "flagged": flag_rates(detector, {**toxic, **hostile}, use=use),
                "let be": flag_rates(detector, {**clean, **harmless}, use=use),
            }
            for use in USES
        },
        "span_f1": _span_f1(detector, data),
        "pooled": pooled_rankings(detector, sets, templates, threshold=threshold),
        "embedding": [
            embedding_correlation(
                detector,
                original,
                sentence_pairs(texts, count=PAIRS, related=share, seed=settings.seed),
                kind=kind,
            )
            for kind, share in RELATED.items()
        ],
        "cross_source": _cross_source(settings, data) if settings.cross_source else [],
    }


def _clean_sets(texts: Mapping[str, Sequence[Labelled]], data: Path) -> dict[str, tuple[str, ...]]:
    """The clean sets, ParaDetox's neutral side without what a judge objects to."""
    sets = clean_sets(texts, data=data)
    agreed = judged_clean(sets.pop(NEUTRAL_SIDE), judges=load_judges(data))
    return {"paradetox neutral that both judges call clean": agreed, **sets}


def _span_f1(detector: Detector, data: Path) -> float:
    """Mean character F1 on the dev posts of Toxic Spans, whose spans most annotators marked."""
    rows = [record.content for record in read_records(data / "toxic_spans" / "dev.jsonl")]
    return span_f1(detector, [row["text"] for row in rows], [row["spans"] for row in rows])


def _cross_source(settings: EvaluateSettings, data: Path) -> list[Any]:
    return cross_source(
        base=model_folder(settings.original),
        data=data,
        out=settings.runs,
        texts=settings.cross_source,
        seed=settings.seed,
        threads=settings.threads,
    )
