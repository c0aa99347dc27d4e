"""Times cases side by side and writes what was measured, with the versions that it was measured on."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from rich.console import Console
from rich.table import Table

__all__ = ["Claim", "median_seconds", "report"]

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("detox-guardrail", "numpy", "onnxruntime", "tokenizers")


@dataclass(frozen=True, slots=True)
class Claim:
    """What the project promises of a figure, and the figure."""

    claim: str
    measured: float
    holds: bool


def median_seconds(cases: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Median seconds of each case; every round runs all of them, so that a slow moment hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for case in cases.values():
        case()
    for _ in range(rounds):
        for name, case in cases.items():
            started = perf_counter()
            case()
            seconds[name].append(perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(
    name: str,
    rows: Sequence[Mapping[str, object]],
    claims: Sequence[Claim],
    *,
    packages: Sequence[str] = PACKAGES,
    settings: Mapping[str, object] | None = None,
) -> None:
    """Prints a table and the claims, and writes both to ``results/NAME.json``.

    The file holds the versions of ``packages`` and, if there are any, the ``settings`` of the run.
    """
    console = Console()
    table = Table(*rows[0], title=name)
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)
    for claim in claims:
        console.print(f"{claim.claim}: {claim.measured:.3g} ({'holds' if claim.holds else 'does not hold'})")
    content = {
        "benchmark": name,
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in packages},
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()},
        **({"settings": dict(settings)} if settings else {}),
        "rows": [dict(row) for row in rows],
        "claims": [asdict(claim) for claim in claims],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
