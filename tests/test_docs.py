"""What the documents say is true: their code runs, their tables match the code, their links resolve."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from guardrail import Outcome, Policy
from guardrail.outcome import LABELS
from tests.map import lines
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])  # environments
)
UNTESTED = {
    *("docs/conformance.md", "docs/frameworks.md", "docs/regularized.md"),
    *("docs/coming-from-guardrails-ai.md", "docs/coming-from-llm-guard.md", "docs/coming-from-nemo.md"),
}
"""Pages whose blocks other tests run, or that are no programs."""
LOADED = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="https?://')
"""What a page fetches from another host."""
FOLDERS = "/" + r"(work|root|tmp|home)/\w"
HOSTS = "|".join(f"{name}{dot_end}" for name, dot_end in [("pypi", r"\.org"), ("huggingface", r"\.co\b")])
MACHINE = re.compile(f"{FOLDERS}|{HOSTS}")


def blocks(document: str, language: str) -> list[str]:
    """The contents of fenced code blocks."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)


def table(document: str) -> list[list[str]]:
    """The cells of the rows of a document's first table, without its header."""
    lines = re.search(r"(?:^\|.*\n)+", document, re.MULTILINE)
    assert lines is not None
    rows = [line.strip("|").split("|") for line in lines.group().splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def with_blocks(language: str) -> list[str]:
    """README and the pages of the documentation that have code in a language, without indented blocks."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [str(page.relative_to(ROOT)) for page in pages if blocks(page.read_text(), language)]
    return [name for name in names if "/decisions/" not in name and name not in UNTESTED]


def project_files() -> list[str]:
    """Every file of the project, new ones that are not ignored included."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted({name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()})


def environment() -> dict[str, str]:
    """That of this process, in which the commands of its environment are found."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path}


def run_shell(script: str, *, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    commands = [line.split("#")[0].strip() for line in blocks(README, "bash")[0].splitlines()]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == commands[1]


@pytest.mark.base
@pytest.mark.parametrize("document", with_blocks("python"))
def test_the_python_blocks_of_a_page_run_in_order(document: str, tmp_path: Path) -> None:
    script = tmp_path / "blocks.py"
    script.write_text("\n".join(blocks((ROOT / document).read_text(), "python")), encoding="utf-8")
    command = [sys.executable, "-W", "error", script]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "idiot" not in done.stdout


@pytest.mark.base
@pytest.mark.parametrize("document", with_blocks("bash"))
def test_the_shell_blocks_of_a_page_run(document: str, tmp_path: Path) -> None:
    for script in blocks((ROOT / document).read_text(), "bash"):
        if not re.search(r"^(make|pip) ", script, re.MULTILINE):
            done = run_shell(script, cwd=tmp_path)
            assert done.returncode == 0, done.stderr


def test_the_policy_table_lists_every_field_with_its_default() -> None:
    told = {}
    for names, defaults, _ in table((ROOT / "docs" / "reference" / "policy.md").read_text()):
        told |= dict(zip(re.findall(r"`(\w+)`", names), re.findall(r"`(.+?)`", defaults), strict=True))
    policy = Policy()
    assert list(told) == [field.name for field in fields(Policy)]
    for name, default in told.items():
        value = getattr(policy, name)
        actual = repr(dict(value) if isinstance(value, Mapping) else value).replace("'", '"')
        assert default in (actual, '"[withheld: ...]"' if name == "refusal" else actual)


def test_the_outcome_table_lists_every_field_and_all_labels_are_named() -> None:
    page = (ROOT / "docs" / "reference" / "outcome.md").read_text()
    told = [name for row in table(page) for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(told) == sorted(field.name for field in fields(Outcome))
    assert all(f"`{label}`" in page for label in LABELS)


def test_the_map_has_the_first_line_of_each_modules_docstring(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "one.py").write_text('"""Finds one: quickly.\n\nMore of it.\n"""\n')
    (tmp_path / "two.py").write_text('"""Counts two."""\n')
    (tmp_path / "three.py").write_text("three = 3\n")
    printed = [line.split(maxsplit=1) for line in lines(tmp_path)]
    assert printed == [
        [str(tmp_path / "inner" / "one.py"), "Finds one: quickly"],
        [str(tmp_path / "two.py"), "Counts two"],
    ]


def test_no_file_names_a_machines_folders_or_a_registry() -> None:
    found = []
    for name in project_files():
        content = (ROOT / name).read_bytes()
        if b"\0" not in content and MACHINE.search(content.decode("utf-8", "replace")):
            found.append(name)
    assert found == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", tmp_path / "site"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="https?://(?!example)[^"]+"', page.read_text()
        )
