"""Type checkers see the signatures that moderated functions had."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import guardrail
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


def pyright(*options: str | Path) -> subprocess.CompletedProcess[str]:
    """Its wheel brings the checker; where there is no Node.js it fetches one at first use."""
    started = run(sys.executable, "-m", "pyright", "--version")
    if started.returncode != 0 or not started.stdout.startswith("pyright"):
        pytest.skip("pyright cannot start: install Node.js")
    return run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable, *options)


@pytest.mark.slow
def test_pyright_sees_the_signatures_of_moderated_functions() -> None:
    done = pyright("-p", FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_pyright_knows_the_whole_type_of_every_public_name() -> None:
    """The rest of the package counts where a public signature leads to it."""
    done = pyright("--verifytypes", "guardrail", "--ignoreexternal", "--outputjson")
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    values = [getattr(guardrail, name) for name in guardrail.__all__ if name != "__version__"]
    public = {f"{value.__module__}.{value.__qualname__}" for value in values}
    known = {}
    for symbol in symbols:
        owner = symbol["name"].rpartition(".")[0]
        if symbol["name"] in public or owner in public:
            known[symbol["name"]] = symbol["isTypeKnown"]
    assert public <= set(known)
    assert [name for name, is_known in known.items() if not is_known] == []
