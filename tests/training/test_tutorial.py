"""The tutorial of training/README.md, from pairs to a guard, on the real base."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheels, unpacked as pip installs them."""
    folder = tmp_path_factory.mktemp("site")
    for project in (ROOT, ROOT / "training"):
        build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "wheels")]
        _python(*build, str(project), cwd=folder)
    wheels = map(str, (folder / "wheels").glob("*.whl"))
    _python(
        "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "all"), *wheels, cwd=folder
    )
    return folder / "all"


def _python(*arguments: str, cwd: Path) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.base
@pytest.mark.slow
def test_the_tutorial_leads_from_pairs_to_a_guard(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(site))
    found = run_shell(
        "python -c 'import guardrail_training; print(guardrail_training.__file__)'", cwd=tmp_path
    )
    assert found.stdout.startswith(str(site)), found.stdout  # not the checkout
    write_pairs(tmp_path / "pairs.csv")
    steps = [
        block for block in blocks(TUTORIAL, "bash") if "guardrail-train targets" in block or "sft" in block
    ]
    (report,) = re.findall(r"`(guardrail-train report .*?)`", TUTORIAL)
    (losses,) = re.findall(r"`(guardrail-train losses .*?)`", TUTORIAL)
    assert len(steps) == 2
    said = []
    for command in (*steps, report, losses):
        done = run_shell(command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert re.match(r"\d+ of 16 targets would be refused", said[0])
    assert said[-1].startswith("| step | loss |")
    page = (tmp_path / "runs" / "ours" / "report.html").read_text(encoding="utf-8")
    assert "smollm2-135m-instruct" in page

    adapter = max(
        (tmp_path / "runs" / "ours").glob("step-*"), key=lambda folder: int(folder.name.removeprefix("step-"))
    )
    (gate,) = [block for block in blocks(TUTORIAL, "bash") if block.startswith("guardrail-train gate")]
    done = run_shell(STEP.sub(adapter.relative_to(tmp_path).as_posix(), gate), cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr  # so short a training may lose
    decided = json.loads((adapter / "guarded.json").read_text(encoding="utf-8"))
    assert decided["accepted"] is (done.returncode == 0)

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
