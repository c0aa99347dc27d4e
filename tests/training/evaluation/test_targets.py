"""Own targets against the guard's checks: how many would be refused, which, and why."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from typer.testing import CliRunner

from guardrail_training.cli import app

ROWS = [
    ("you are a fucking idiot, John", "I disagree with you, John"),
    ("this printer is a piece of shit", "this printer is a piece of shit"),  # a copy, still toxic
    ("you damn idiot, pay 40 dollars", "please pay 55 dollars"),  # another number
]


def test_the_command_says_how_many_targets_are_refused_which_and_why(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("comment", "better"), *ROWS])
    given = ["targets", str(path), "--source", "comment", "--target", "better"]

    done = CliRunner().invoke(
        app,
        [*given, "--refused", str(tmp_path / "no.jsonl"), "--accepted", str(tmp_path / "yes.jsonl")],
    )

    assert done.exit_code == 0, done.output
    refused = [json.loads(line) for line in (tmp_path / "no.jsonl").read_text().splitlines()]
    checks = {each["row"]: each["checks"] for each in refused}
    assert done.output.startswith(f"{len(refused)} of 3 targets would be refused (")
    assert "toxic" in checks[3]
    assert "number" in checks[4]
    assert "the detector still flags it; rows 3" in done.output
    kept = [json.loads(line) for line in (tmp_path / "yes.jsonl").read_text().splitlines()]
    assert len(kept) + len(refused) == 3
    assert all(row["better"] for row in kept)
