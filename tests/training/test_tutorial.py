"""The tutorial of training/README.md, from pairs to a guard, on the real base."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

import guardrail
from guardrail.rewriters.lora import LoraRewriter
from guardrail_training.evaluation.gate import compare
from guardrail_training.provenance import model_folder
from tests.test_docs import ROOT, blocks, run_shell
from tests.training.research.evaluation.test_evaluate import FAIR, SENTENCES

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
    base = model_folder("smollm2-135m-instruct")
    gate = compare(
        adapter,
        ROOT / "guardrail" / "shipped" / "rewriter",
        load=lambda folder: LoraRewriter.load(folder, base_folder=base),
        sentences=SENTENCES,
        instruments=FAIR,
        seed=0,
    )
    assert gate.new.n == gate.current.n == len(SENTENCES.sources)

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
