"""Fills the pages of the documentation that are made from the code: commands and decisions."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

DECISIONS = Path(__file__).parent / "decisions"
COMMANDS = {"guardrail": "guardrail.integrations.cli", "guardrail-train": "guardrail_training.cli"}


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """mkdocs calls it for every page."""
    source = page.file.src_uri
    if source == "decisions/index.md":
        return markdown + "\n".join(f"- [{title_of(path)}]({path.name})" for path in decisions())
    if source == "reference/cli.md":
        return markdown + "\n".join(help_of(name, module) for name, module in COMMANDS.items())
    return markdown


def decisions() -> list[Path]:
    """The records, in the order of their numbers."""
    return sorted(DECISIONS.glob("0*.md"))


def title_of(path: Path) -> str:
    """The first heading of a page."""
    return path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")


def help_of(name: str, module: str) -> str:
    """All commands of a program as Markdown, written by typer."""
    command = [sys.executable, "-m", "typer", module, "utils", "docs", "--name", name]
    written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in written.splitlines())
