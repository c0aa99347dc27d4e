"""What cannot be written is said before the work, not after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail.errors import UsageError
from guardrail_training.cli import app
from guardrail_training.outputs import require_writable
from research.cli import app as research


@pytest.mark.parametrize(("folder", "place"), [(False, "new/file"), (True, "new/folder"), (True, "")])
def test_what_can_be_written_is_neither_an_error_nor_made(folder: bool, place: str, tmp_path: Path) -> None:
    assert require_writable(tmp_path / place, folder=folder) == tmp_path / place
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UsageError, match="is a folder: name a file"):
        require_writable(tmp_path)
    for path in ("file", "file/below", "file/far/below"):
        with pytest.raises(UsageError, match="is a file"):
            require_writable(tmp_path / path, folder=True)
    with pytest.raises(UsageError, match="is a file"):
        require_writable(tmp_path / "file" / "below")


COMMANDS = [
    (app, ["sft", "--out", "FILE"]),
    (app, ["ppo", "--out", "FILE"]),
    (app, ["preference", "--out", "FILE/below"]),
    (app, ["regularized", "--recipe", "toxigen-regularized", "--out", "FILE"]),
    (app, ["records", "nowhere.tsv", "--out", "FOLDER"]),
    (app, ["export", "FOLDER", "--out", "FILE/below"]),
    (app, ["report", "FOLDER", "--out", "FOLDER"]),
    (app, ["import", "FOLDER", "--template", "{text}", "--out", "FILE"]),
    (app, ["data", "pull", "paradetox", "--from", "FOLDER", "--out", "FILE"]),
    (app, ["recipes", "copy", "dpo-rewriter", "FOLDER"]),
    (app, ["recipes", "copy", "dpo-rewriter", "FILE/below"]),
    (app, ["gate", "--adapter", "FOLDER", "--dev", "FILE", "--out", "FILE"]),
    (app, ["evaluate", "acceptance", "--out", "FILE", "--set", 'systems=["a=", "b=x"]']),
    (research, ["rewriter-data", "FOLDER", "--data", "FOLDER"]),
    (research, ["rewriter-data", "FILE/below", "--data", "FOLDER"]),
    (research, ["rewriter-data", "new.jsonl", "--refused", "FOLDER", "--data", "FOLDER"]),
    (research, ["detector", "--base", "FOLDER", "--out", "FILE"]),
    (research, ["verifier", "--base", "FOLDER", "--out", "FILE"]),
    (research, ["tagger", "--base", "FOLDER", "--out", "FILE"]),
    (research, ["evaluate", "judges", "--out", "FILE"]),
]


@pytest.mark.parametrize(
    ("program", "command"), COMMANDS, ids=lambda each: "-".join(each[:2]) if isinstance(each, list) else ""
)
def test_every_command_says_so_in_one_line(program: object, command: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    places = {"FILE": str(tmp_path / "file"), "FOLDER": str(tmp_path / "folder")}
    given = [
        places.get(part.split("/")[0], part.split("/")[0]) + part[len(part.split("/")[0]) :]
        for part in command
    ]

    done = CliRunner().invoke(program, given)  # type: ignore[arg-type]

    assert done.exit_code == 2, done.output
    assert "is a f" in done.output or "exists" in done.output
    assert done.output.count("\n") == 1
