"""The gate on coverage counts lines and branches apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.coverage_gate import Reach, by_folder, failures, main


def summary(*, lines: int, branches: int) -> dict[str, int]:
    """That of a file with a hundred lines and a hundred branches, of which so many were run."""
    return {
        "covered_lines": lines,
        "num_statements": 100,
        "covered_branches": branches,
        "num_branches": 100,
    }


@pytest.mark.parametrize(
    ("lines", "branches", "missing"),
    [(95, 90, []), (94, 100, ["lines"]), (100, 89, ["branches"]), (94, 89, ["lines", "branches"])],
)
def test_lines_and_branches_have_a_minimum_each(lines: int, branches: int, missing: list[str]) -> None:
    found = failures(Reach.of(summary(lines=lines, branches=branches)))
    assert len(found) == len(missing)
    assert all(f"of the {kind}" in failure for kind, failure in zip(missing, found, strict=True))


def test_a_report_without_a_measured_line_fails() -> None:
    assert failures(Reach()) == ["no line was measured"]


def test_files_are_added_up_by_folder() -> None:
    report = {
        "files": {
            "guardrail/text/checks.py": {"summary": summary(lines=90, branches=50)},
            "guardrail/text/segment.py": {"summary": summary(lines=100, branches=70)},
            "guardrail/guard.py": {"summary": summary(lines=10, branches=5)},
        }
    }
    assert by_folder(report) == {
        "guardrail": Reach(10, 100, 5, 100),
        "guardrail/text": Reach(190, 200, 120, 200),
    }


def test_the_exit_status_says_whether_enough_is_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "coverage.json"
    for lines, status in ((99, 0), (50, 1)):
        path.write_text(
            json.dumps({"files": {"guardrail/guard.py": {"summary": summary(lines=lines, branches=95)}}})
        )
        assert main(str(path)) == status
    assert "tests reach 50.00 % of the lines, less than 95 %" in capsys.readouterr().out
