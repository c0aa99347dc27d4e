"""Which parts of the integrations may know of which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

INTEGRATIONS = Path(__file__).parents[2] / "guardrail" / "integrations"
PACKAGE = "guardrail.integrations."


def imported_by(name: str) -> set[str]:
    """The parts of the integrations that a folder or module imports, functions included."""
    path = INTEGRATIONS / name
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {module.removeprefix(PACKAGE).split(".")[0] for module in modules if module.startswith(PACKAGE)}


@pytest.mark.parametrize(
    ("part", "known"),
    [
        ("strict_json", set()),
        ("web", {"web", "strict_json"}),
        ("completions", {"completions", "strict_json"}),
        ("responses", {"responses", "completions", "strict_json"}),
        ("messages", {"messages", "completions", "strict_json"}),
        ("openai_server", {"openai_server", "completions", "responses", "messages", "web", "strict_json"}),
    ],
)
def test_the_server_knows_its_neighbours_and_they_do_not_know_it(part: str, known: set[str]) -> None:
    assert imported_by(part) == known


def test_the_audit_does_not_know_the_server() -> None:
    assert "web" in imported_by("audit")
    assert "openai_server" not in imported_by("audit")
