"""The tutorial of training/README.md, from pairs to a guard, on the real base."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

import guardrail
from tests.test_docs import ROOT, blocks, run_shell

TUTORIAL = (ROOT / "training" / "README.md").read_text(encoding="utf-8").partition("\n## Further")[0]
STEP = re.compile(r"runs/ours/step-\d+")


def write_pairs(path: Path) -> None:
    things = ["printer", "lift", "coffee", "meeting", "update", "keyboard", "train", "queue"]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["comment", "better"])
        for thing in things:
            rows.writerow([f"this {thing} is a piece of shit", f"this {thing} does not work well"])
            rows.writerow([f"the damn {thing} again , you morons", f"the {thing} again , all of you"])


@pytest.mark.base
@pytest.mark.slow
def test_the_tutorial_leads_from_pairs_to_a_guard(tmp_path: Path) -> None:
    (tmp_path / "guardrail").symlink_to(Path(guardrail.__file__).parent)  # the checkout that it speaks of
    write_pairs(tmp_path / "pairs.csv")
    (train,) = [block for block in blocks(TUTORIAL, "bash") if block.startswith("guardrail-train sft")]
    (report,) = re.findall(r"`(guardrail-train report .*?)`", TUTORIAL)
    for command in (train, report):
        done = run_shell(command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    page = (tmp_path / "runs" / "ours" / "report.html").read_text(encoding="utf-8")
    assert "smollm2-135m-instruct" in page

    adapter = max(
        (tmp_path / "runs" / "ours").glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-"))
    )
    (gate,) = [block for block in blocks(TUTORIAL, "bash") if block.startswith("guardrail-train gate")]
    done = run_shell(STEP.sub(adapter.relative_to(tmp_path).as_posix(), gate), cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr  # so short a training may lose
    figures = json.loads((adapter / "guarded.json").read_text(encoding="utf-8"))
    assert figures["accepted"] is (done.returncode == 0)

    (use,) = blocks(TUTORIAL, "python")
    script = f"""from guardrail import Guard
{STEP.sub(adapter.relative_to(tmp_path).as_posix(), use)}
outcome = ours.check("this printer is a piece of shit")
print(outcome.action, outcome.text)
"""
    (tmp_path / "use.py").write_text(script, encoding="utf-8")
    done = run_shell("python use.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        ("rewritten ", "masked ")
    )  # the verifier judges what so short a training writes
    assert "shit" not in done.stdout
