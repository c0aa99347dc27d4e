"""Type checkers see the signatures that moderated functions had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "typing"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.slow
def test_mypy_sees_the_signatures_of_moderated_functions() -> None:
    done = run(sys.executable, "-m", "mypy", "--strict", FOLDER / "signatures.py")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_pyright_sees_the_signatures_of_moderated_functions() -> None:
    """Its wheel brings the checker; where there is no Node.js it fetches one at first use."""
    started = run(sys.executable, "-m", "pyright", "--version")
    if started.returncode != 0 or not started.stdout.startswith("pyright"):
        pytest.skip("pyright cannot start: install Node.js")
    done = run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr
