"""Reads what evaluate acceptance found in a run's folder: what readers accepted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from guardrail.errors import UsageError
from guardrail_training.metrics.statistics import Rate

__all__ = ["Acceptance", "AcceptanceRow", "find_acceptance"]

FILE = "acceptance.json"


@dataclass(frozen=True, slots=True)
class AcceptanceRow:
    """One system on one set; ``accepted`` and ``wrong`` are shares of what was flagged, None for nothing."""

    system: str
    name: str
    sentences: int
    accepted: Rate | None
    wrong: Rate | None
    missed: Rate | None


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Every system and set, how many rows were read, and Cohen's kappa of accepting."""

    rows: tuple[AcceptanceRow, ...]
    read: int
    kappa: float | None


def find_acceptance(folder: Path) -> Acceptance | None:
    """The figures in a folder, None if there are none; UsageError for a file of another kind."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Acceptance(
            rows=tuple(_row(each) for each in content["figures"]),
            read=int(content["agreement"]["rows"]),
            kappa=content["agreement"]["verdict_kappa"],
        )
    except (OSError, ValueError, LookupError, TypeError):
        raise UsageError(
            f"{path} holds no ratings: run 'guardrail-train evaluate acceptance' with ratings again"
        ) from None


def _row(content: Any) -> AcceptanceRow:
    rates = {name: _rate(content[name]) for name in ("accepted", "wrong", "missed")}
    return AcceptanceRow(str(content["system"]), str(content["name"]), int(content["sentences"]), **rates)


def _rate(content: Any) -> Rate | None:
    return None if content is None else Rate(**content)
