"""Public sets from a folder, and by the real client from a stand-in for a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from guardrail.errors import ConfigError, UsageError
from guardrail_training.cli import app
from guardrail_training.data import load_paradetox
from guardrail_training.public_sets import LISTED, ORIGIN, pull
from guardrail_training.records import TrainingRowError

SHA = "1" * 40
PAIRS = [("rude cat", "a cat"), ("rude cat", "the cat"), ("rude cat", "a cat"), ("rude dog", "a dog")]
TABLE = "en_toxic_comment\ten_neutral_comment\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "train.tsv").write_text(TABLE, encoding="utf-8")
    return folder


def test_a_listed_set_from_a_folder_is_what_the_trainers_read(files: Path, tmp_path: Path) -> None:
    given = ["data", "pull", "paradetox", "--from", str(files), "--out", str(tmp_path / "data")]

    done = CliRunner().invoke(app, given)

    assert done.exit_code == 0, done.output
    rows = load_paradetox(tmp_path / "data", split="train")
    assert [(row.source, row.references) for row in rows] == [
        ("rude cat", ("a cat", "the cat")),
        ("rude dog", ("a dog",)),
    ]
    origin = json.loads((tmp_path / "data" / "paradetox" / ORIGIN).read_text())
    assert origin["files"] == {"train.tsv": hashlib.sha256(TABLE.encode()).hexdigest()}
    assert CliRunner().invoke(app, given).exit_code == 2  # it exists


def test_parts_are_told_by_names_and_a_missing_dev_part_is_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, count in (("train", 3), ("validation", 2), ("test", 1)):
        (folder / f"{name}.csv").write_text("text,n\n" + "a b,1\n" * count, encoding="utf-8")
    assert pull("own", out=tmp_path / "one", source=folder).rows == {"test": 1, "train": 3, "dev": 2}

    for name in ("validation", "test"):
        (folder / f"{name}.csv").unlink()
    (folder / "train.csv").write_text(
        "text,n\n" + "".join(f"a b,{n}\n" for n in range(100)), encoding="utf-8"
    )
    assert pull("own", out=tmp_path / "two", source=folder).rows == {"train": 95, "dev": 5}
    rows = [(tmp_path / "two" / "own" / f"{part}.jsonl").read_text() for part in ("train", "dev")]
    assert len(set("".join(rows).splitlines())) == 100


def test_unknown_names_empty_folders_and_missing_fields_are_named(files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="paradetox"):
        pull("paradetoks", out=tmp_path)
    with pytest.raises(UsageError, match="has no table"):
        pull("paradetox", out=tmp_path / "data", source=_empty(tmp_path))
    (files / "train.tsv").write_text("text\nhello\n", encoding="utf-8")
    with pytest.raises(TrainingRowError, match="no field en_toxic_comment; its fields are text"):
        pull("paradetox", out=tmp_path / "data", source=files)
    assert not (tmp_path / "data").exists()


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


class Hub(BaseHTTPRequestHandler):
    """One data set of one file, and a pickle beside it that nobody may ask for."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.asked.append(self.path)
        path = self.path.partition("?")[0]
        if "/tree/" in path:
            files = {"train.tsv": TABLE.encode(), "evil.pkl": b"x"}
            found = [
                {"type": "file", "path": name, "oid": "0" * 40, "size": len(content)}
                for name, content in files.items()
            ]
            body, kind = json.dumps(found).encode(), "application/json"
        elif path.startswith("/api/datasets/s-nlp/paradetox"):
            names = [{"rfilename": name} for name in ("train.tsv", "evil.pkl")]
            listing = {"id": "s-nlp/paradetox", "sha": SHA, "siblings": names, "tags": [], "private": False}
            body, kind = json.dumps(listing).encode(), "application/json"
        elif path.endswith(f"/datasets/s-nlp/paradetox/resolve/{SHA}/train.tsv"):
            body, kind = TABLE.encode(), "text/tab-separated-values"
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body, usedforsecurity=False).hexdigest()}"')
        self.send_header("X-Repo-Commit", SHA)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's word
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_listed_set_is_fetched_at_one_commit_and_nothing_but_its_tables(hub: str, tmp_path: Path) -> None:
    # The client reads its endpoint when it is imported.
    code = (
        "import sys; from guardrail_training.public_sets import pull; "
        "print(pull('paradetox', out=sys.argv[1]).rows)"
    )
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "data" / "paradetox" / ORIGIN).read_text())["revision"] == SHA
    assert len(load_paradetox(tmp_path / "data", split="train")) == 2
    assert not [path for path in Hub.asked if "evil" in path]


def test_every_listed_set_is_listed_by_the_command() -> None:
    done = CliRunner().invoke(app, ["data", "list"])
    assert all(name in done.output and each.repo in done.output for name, each in LISTED.items())
