"""Prints how much of the runtime package the tests reached, by folder, and fails below a minimum.

    python -m pytest --cov --cov-report=json:coverage.json
    python -m tests.coverage_gate coverage.json

Coverage's own ``fail_under`` has one number for lines and branches together, in which branches hardly count.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIN_LINES = 95.0
MIN_BRANCHES = 90.0


@dataclass(frozen=True, slots=True)
class Reach:
    """How many of the lines and branches of some files were run."""

    lines: int = 0
    all_lines: int = 0
    branches: int = 0
    all_branches: int = 0

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Reach:
        """That of a summary in coverage's report."""
        names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
        return cls(*(int(summary[name]) for name in names))

    def __add__(self, other: Reach) -> Reach:
        return Reach(
            self.lines + other.lines,
            self.all_lines + other.all_lines,
            self.branches + other.branches,
            self.all_branches + other.all_branches,
        )

    def __str__(self) -> str:
        return (
            f"lines {self.lines:6} of {self.all_lines:6} ({_percent(self.lines, self.all_lines):5.1f} %)  "
            f"branches {self.branches:5} of {self.all_branches:5} "
            f"({_percent(self.branches, self.all_branches):5.1f} %)"
        )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


def by_folder(report: Mapping[str, Any]) -> dict[str, Reach]:
    """The reach in each folder of a report in coverage's JSON format."""
    found: defaultdict[str, Reach] = defaultdict(Reach)
    for name, file in report["files"].items():
        found[Path(name).parent.as_posix()] += Reach.of(file["summary"])
    return dict(sorted(found.items()))


def failures(total: Reach) -> list[str]:
    """What is below its minimum; a report in which nothing was measured is, too."""
    if not total.all_lines:
        return ["no line was measured"]
    shares = (
        ("lines", _percent(total.lines, total.all_lines), MIN_LINES),
        ("branches", _percent(total.branches, total.all_branches), MIN_BRANCHES),
    )
    return [
        f"tests reach {share:.2f} % of the {kind}, less than {minimum:g} %"
        for kind, share, minimum in shares
        if share < minimum
    ]


def main(path: str) -> int:
    """Prints the reach by folder, and what is below its minimum; 1 if anything is."""
    folders = by_folder(json.loads(Path(path).read_text(encoding="utf-8")))
    total = sum(folders.values(), Reach())
    for folder, reach in [*folders.items(), ("all", total)]:
        print(f"{folder:42} {reach}")
    found = failures(total)
    print("\n".join(found) or "enough is reached")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
