"""A data set goes to a hub or a folder with a card of its rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail.errors import FailureError, UsageError
from guardrail.manifest import sha256_of
from guardrail_training.cli import app
from guardrail_training.export.dataset import push_data
from guardrail_training.records import TrainingRowError
from tests.training.export.test_hub import Hub, hub

__all__ = ["hub"]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_text('{"inputs": "a", "outputs": "b"}\n{"inputs": "c", "outputs": "d"}\n')
    return path


def test_files_and_card_arrive_at_the_hub_in_one_commit(hub: Hub, rows: Path) -> None:
    place = f"http://127.0.0.1:{hub.server_port}"

    url = push_data([rows], "team/model", licence="CC0-1.0", about="Pairs.", endpoint=place)

    assert "/commit/" in url
    assert sorted(hub.files) == ["README.md", "records.jsonl"]
    assert hub.files["records.jsonl"] == rows.read_bytes()
    card = hub.files["README.md"].decode()
    assert card.startswith("---\nlicense: cc0-1.0\n---\n# model\n\nPairs.\n")
    assert f"| records.jsonl | 2 | `{sha256_of(rows)}` |" in card
    assert any("/api/datasets/" in path for path in hub.asked)
    hub.refuses = True
    with pytest.raises(FailureError, match="could not be pushed"):
        push_data([rows], "team/model", licence="CC0-1.0", endpoint=place)


def test_the_command_writes_a_folder_and_never_over_another(rows: Path, tmp_path: Path) -> None:
    given = ["data", "push", str(rows), "--to", str(tmp_path / "set"), "--licence", "CC-BY-4.0"]

    assert CliRunner().invoke(app, given).exit_code == 0
    assert (tmp_path / "set" / "records.jsonl").read_bytes() == rows.read_bytes()
    assert "license: cc-by-4.0" in (tmp_path / "set" / "README.md").read_text()
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 2
    assert "is not empty: name a new folder" in again.output


def test_files_without_rows_and_files_of_one_name_are_refused(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("zebra\n")
    with pytest.raises(TrainingRowError, match="row 1"):
        push_data([tmp_path / "bad.jsonl"], str(tmp_path / "x"), licence="MIT")
    with pytest.raises(UsageError, match="each with a name of its own"):
        push_data([rows, rows], str(tmp_path / "x"), licence="MIT")
