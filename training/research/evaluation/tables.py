"""The tables of judges and detectors in Markdown, from their JSON alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from guardrail_training.evaluation.tables import interval, table

__all__ = ["detector_tables", "judge_table"]

Result = Mapping[str, Any]


def judge_table(result: Result) -> str:
    """How the judges do on ParaDetox's two sides."""
    rows = [
        [
            each["judge"],
            part,
            each["threshold"],
            each["auc"],
            f"{each['toxic_called_clean']:.3f} of {each['toxic']}",
            f"{each['neutral_called_clean']:.3f} of {each['neutral']}",
            f"{each['toxic_mean']:.3f} / {each['neutral_mean']:.3f}",
        ]
        for part, reports in result["judges"].items()
        for each in reports
    ]
    header = ["judge", "part", "threshold", "AUC", "toxic side called clean", "neutral side called clean"]
    return table([*header, "mean score, toxic / neutral"], rows)


def detector_tables(result: Result) -> str:
    """Ranking per source and label, flag rates, templates, embedding; cross-source figures if measured."""
    pieces = ["### Each source's question\n", _task_table(result["tasks"])]
    pieces += ["### Flagged by the presets\n", _preset_table(result["rates"])]
    pieces += [f"Span F1 on the dev posts of Toxic Spans: {result['span_f1']:.3f}\n"]
    pieces += ["### Ranking by label\n", _ranking_table(result["rankings"])]
    pooled = [{**each, "source": name} for name, each in result["pooled"].items()]
    pieces += ["### All sources together, and the project's own template sentences\n", _ranking_table(pooled)]
    rows = [[each["kind"], each["pairs"], each["spearman"]] for each in result["embedding"]]
    header = ["sentence pairs", "n", "rank correlation with the original"]
    pieces += ["### Embedding\n", table(header, rows)]
    if result.get("cross_source"):
        crossed = [
            {
                **each,
                "source": f"{each['tested_on']} (trained without, {each['texts']} texts)",
            }
            for each in result["cross_source"]
        ]
        pieces += ["### Sources never seen in training\n", _ranking_table(crossed)]
    return "\n".join(pieces)


def _ranking_table(rows: Iterable[Result]) -> str:
    header = [
        "source",
        "label",
        "toxic",
        "clean",
        "AUC",
        "AP",
        "F1",
        "recall at 1 % FPR",
        "recall at 5 % FPR",
    ]
    names = ("positives", "negatives", "auc", "average_precision", "f1", "recall_at_1", "recall_at_5")
    return table(
        header, [[row["source"], row["label"], *(row["ranking"][name] for name in names)] for row in rows]
    )


def _task_table(tasks: Iterable[Result]) -> str:
    header = ["source: what is positive", "label", "n positive / negative", "AUC", "calibration error"]
    header += ["assistant: recall", "false alarms", "community: recall", "false alarms"]
    rows = []
    for each in tasks:
        shares = [
            f"{each[side][use]['value']:.3f}"
            for use in ("assistant", "community")
            for side in ("recall", "false_alarms")
        ]
        counts = f"{each['positives']} / {each['negatives']}"
        rows.append(
            [each["task"], each["label"], counts, interval(each["auc"]), each["calibration_error"], *shares]
        )
    return table(header, rows)


def _preset_table(rates: Result) -> str:
    """What should be flagged and what should not, a column for each preset."""
    first = next(iter(rates.values()))
    rows = [
        [kind, name, rate["n"], *(interval(by_use[kind][name]) for by_use in rates.values())]
        for kind, sets in first.items()
        for name, rate in sets.items()
    ]
    return table(["should be", "set", "n", *rates], rows)
