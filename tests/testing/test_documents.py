"""The pages on conformance and on coming from other packages say what is so."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.conformance import BEGIN, END, PEERS, RESULTS, table
from guardrail.testing import LAWS
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
PAGES = {"llm-guard": "llm_guard", "guardrails-ai": "guardrails", "nemo": "nemoguardrails"}


def blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)


def test_the_table_is_that_of_the_results() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))["peers"]
    shown = CONFORMANCE.partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == table(results)
    assert set(results) == {peer.package for peer in PEERS}


def test_our_guard_keeps_all_laws_in_the_results_and_every_refusal_has_an_example() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))["peers"]
    ours = {finding["law"]: finding["result"] for finding in results["detox-guardrail"]["findings"]}
    assert ours == dict.fromkeys(LAWS, "holds")
    for peer in results.values():
        assert all(finding["reason"] for finding in peer["findings"] if finding["result"] != "holds")


def test_the_guard_of_ten_lines_keeps_what_applies_to_it(tmp_path: Path) -> None:
    (block,) = blocks(CONFORMANCE)
    (tmp_path / "test_mine.py").write_text(block, encoding="utf-8")
    wanted = "unchanged or flagged or nonsense or linear"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", wanted, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_example_of_a_page_runs_without_the_other_package(page: str) -> None:
    document = (ROOT / "docs" / f"coming-from-{page}.md").read_text(encoding="utf-8")
    foreign = re.compile(
        r"^(from|import) (llm_guard|guardrails|nemoguardrails)\b|integrations\.guardrails_ai", re.MULTILINE
    )
    runs = [block for block in blocks(document) if not foreign.search(block)]
    assert runs
    for block in runs:
        done = subprocess.run(
            [sys.executable, "-c", block], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "You will find the plan on page 12." in done.stdout
        assert "idiot" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("page", ["guardrails-ai", "nemo"])
def test_the_example_of_a_page_runs_inside_the_other_package(page: str) -> None:
    if importlib.util.find_spec(PAGES[page]) is None:
        pytest.skip(f"{PAGES[page]} is not installed")
    document = (ROOT / "docs" / f"coming-from-{page}.md").read_text(encoding="utf-8")
    (block,) = [block for block in blocks(document) if "guardrail.integrations" in block]
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "You will find the plan on page 12." in done.stdout
    assert "idiot" not in done.stdout
