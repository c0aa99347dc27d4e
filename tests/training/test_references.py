"""Every command that docs/references.md names is there, with its options and its recipes."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from guardrail.integrations.cli import app as runtime
from guardrail_training.cli import app as training
from guardrail_training.recipe import shipped_recipes

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "references.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"`(guardrail(?:-train)? [^`]+)`", PAGE)))
APPS = {"guardrail": runtime, "guardrail-train": training}


def found(line: str) -> tuple[list[str], list[str]]:
    """The words of a command up to its first argument, and the options given."""
    program, *words = shlex.split(line)
    node: Any = typer.main.get_command(APPS[program])
    path = [program]
    while words and words[0] in getattr(node, "commands", {}):
        path.append(words[0])
        node = node.commands[words.pop(0)]
    return path, [word.partition("=")[0] for word in words if word.startswith("--")]


@cache
def help_of(path: tuple[str, ...]) -> str:
    program, *words = path
    done = CliRunner().invoke(APPS[program], [*words, "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_page_exists_with_its_options(line: str) -> None:
    path, options = found(line)

    assert len(path) > 1, f"{line}: no such command"
    told = help_of(tuple(path))
    for option in options:
        assert re.search(rf"{option}\b", told), f"{line}: no option {option}"


def test_every_recipe_of_the_page_exists() -> None:
    known = {recipe.name for recipe in shipped_recipes()}
    named = set(re.findall(r"--recipe ([\w-]+)", PAGE)) | set(re.findall(r"`([\w-]+-cpu)`", PAGE))

    assert len(named) > 10
    assert named <= known


def test_every_page_that_is_linked_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)", PAGE):
        assert (ROOT / "docs" / link).exists(), link
