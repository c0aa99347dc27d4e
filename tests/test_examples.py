"""Every example runs as a user would run it, on the shipped models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[1]
EXPECTED = {
    "01_decorator.py": "plan:   Meet at nine, bring the printed maps, and leave before the rain starts.",
    "02_guard.py": "The parcel arrives on Tuesday. ",
    "03_own_models.py": "rewritten: Our client is a careful buyer who asks for three offers.",
    "04_many_texts.py": "passed     The second chapter is hard to follow.",
    "05_embeddings.py": "Refunds are paid within five days.",
    "06_langchain_chain.py": "stream: The second chapter is clear and well written.",
    "07_langchain_agent.py": "sent: We are sorry for the delay.",
    "08_bulk_file.py": "{'passed': 2, 'masked': 1}",
    "09_openai_proxy.py": "piece: Your parcel left Graz on Monday.",
    "10_fastapi_app.py": " i**** who wrote this menu cannot spell. We paid 23 euros.",
    "11_streaming.py": "rewritten: 1 of the sentences changed",
    "12_remote_rewriter.py": "rewritten: Why is the report late again?",
    "demo.py": "passed",
}


def test_every_example_is_among_those_that_are_run() -> None:
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXPECTED)


@pytest.mark.base
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_example_prints_what_it_promises(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error::guardrail.errors.GuardrailWarning", ROOT / "examples" / name],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert EXPECTED[name] in done.stdout


def test_the_closest_answer_comes_first() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "05_embeddings.py"], capture_output=True, text=True, check=True
    )
    assert "Refunds" in done.stdout.splitlines()[0]
