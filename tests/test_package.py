"""The package as a whole: what importing it costs, which names it has, which way imports run."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import guardrail
from guardrail.errors import FailureError

ROOT = Path(__file__).parents[1]
MODULES = sorted(module.name for module in pkgutil.walk_packages(guardrail.__path__, "guardrail."))
IMPORT_RUNS = 5
IMPORT_RATIO = 2.5
"""Where numpy takes 0.1 s to import, this is the 0.25 s that importing guardrail may take."""


IMPORT_SCRIPT = """
from time import process_time as now
start = now(); import numpy; numpy_done = now(); import guardrail
print((now() - start) / (numpy_done - start))
"""


def test_importing_the_package_loads_no_model_library_and_no_training_code() -> None:
    script = "import sys, guardrail; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "peft", "guardrail_training", "onnxruntime", "tokenizers", "sklearn"}
    assert not (heavy | {"sqlalchemy", "pyarrow", "rich", "typer"}) & set(done.stdout.split())


def test_importing_the_package_takes_little_longer_than_importing_numpy() -> None:
    def ratio() -> float:
        done = subprocess.run(
            [sys.executable, "-c", IMPORT_SCRIPT], capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    assert min(ratio() for _ in range(IMPORT_RUNS)) <= IMPORT_RATIO


def test_no_name_but_the_public_ones_leaks() -> None:
    public = {
        name
        for name, value in vars(guardrail).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert public | {"__version__"} == set(guardrail.__all__)


def test_every_public_error_and_warning_is_a_public_name_of_the_package() -> None:
    errors = {
        name
        for name in guardrail.errors.__all__
        if isinstance(found := getattr(guardrail.errors, name), type) and issubclass(found, Exception)
    }
    assert len(errors) > 10
    assert errors | {"Stream", "AsyncStream", "Timings", "AuditLog"} <= set(guardrail.__all__)
    assert all(getattr(guardrail, name) is getattr(guardrail.errors, name) for name in errors)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported_and_has_its_public_names(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except FailureError as error:  # of a framework, which is not here
        pytest.skip(str(error))
    for public in getattr(module, "__all__", ()):
        assert hasattr(module, public), f"{name}.__all__ names {public}, which is not there"


@pytest.mark.parametrize(
    ("folder", "unknown"),
    [("guardrail", ("guardrail_training", "research")), ("training/guardrail_training", ("research",))],
)
def test_a_package_never_imports_what_its_wheel_lacks(folder: str, unknown: tuple[str, ...]) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.partition(".")[0] in unknown for name in names), path.name
