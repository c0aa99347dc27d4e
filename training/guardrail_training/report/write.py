"""Writes the report of a run: ``guardrail-train report RUN``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guardrail.errors import UsageError
from guardrail_training.report.page import page_of
from guardrail_training.report.run import read_run

__all__ = ["FILENAME", "write_report"]

FILENAME = "report.html"


def write_report(
    run: str | Path,
    *,
    out: str | Path | None = None,
    rows: int = 100,
    results: Sequence[str | Path] = (),
) -> Path:
    """Writes one HTML page about the run in a folder, ``<run>/report.html`` by default; returns its path.

    At most ``rows`` samples are in its table. ``results`` are files of evaluate select, gate or rewriter in
    addition to those in the folder. Raises UsageError that names the file if one is missing or broken.
    """
    if rows < 1:
        raise UsageError(f"rows must be at least 1, got {rows}")
    page = page_of(read_run(run, results=results), rows=rows)
    path = Path(out) if out else Path(run) / FILENAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page)
    return path
