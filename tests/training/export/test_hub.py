"""The real client against a stand-in for a hub on this machine."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import FailureError, ManifestError
from guardrail.manifest import Manifest, sha256_of
from guardrail_training.export.hub import push


class Hub(ThreadingHTTPServer):
    """Answers what the client asks when it uploads small files, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked: list[str] = []
        self.created: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.summary = ""
        self.refuses = False


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.refuses:
            self._answer({"error": "no"}, status=403)
        else:
            self._answer({"id": "team/model", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.refuses:
            self._answer({"error": "no"}, status=403)
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._answer({"url": f"{self._root}/team/model"})
        elif "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                self._take(json.loads(line))
            self._answer({"commitUrl": f"{self._root}/team/model/commit/{'1' * 40}", "commitOid": "1" * 40})
        else:
            self._answer({"errors": [], "warnings": []})

    def _take(self, part: dict[str, Any]) -> None:
        value = part["value"]
        if part["key"] == "header":
            self.server.summary = value["summary"]
        else:
            self.server.files[value["path"]] = base64.b64decode(value["content"])

    @property
    def _root(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def _answer(self, content: dict[str, Any], *, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Nothing: the default writes to standard error."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_TOKEN", "not-a-token")
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (
        ("README.md", "# model\n"),
        ("adapter_model.safetensors", "weights"),
        ("notes", ""),
    ):
        (tmp_path / name).write_text(content)
    files = {name: sha256_of(tmp_path / name) for name in ("README.md", "adapter_model.safetensors")}
    Manifest("adapter", "model", "1", "Apache-2.0", files=files, template="{text}").save(tmp_path)
    return tmp_path


def test_the_files_of_the_manifest_arrive_in_one_commit(hub: Hub, folder: Path) -> None:
    url = push(folder, "team/model", endpoint=f"http://127.0.0.1:{hub.server_port}")

    assert url.endswith(f"/team/model/commit/{'1' * 40}")
    assert sorted(hub.files) == ["README.md", "adapter_model.safetensors", "manifest.json"]
    assert hub.files["adapter_model.safetensors"] == b"weights"
    assert hub.summary == "model 1"
    assert hub.created.get("private") or hub.created.get("visibility") == "private"


def test_an_altered_file_is_never_sent(hub: Hub, folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_text("other")

    with pytest.raises(ManifestError, match="was altered"):
        push(folder, "team/model", endpoint=f"http://127.0.0.1:{hub.server_port}")
    assert hub.asked == []


def test_a_refusal_is_one_error_that_says_what_to_check(hub: Hub, folder: Path) -> None:
    hub.refuses = True

    with pytest.raises(FailureError, match=r"team/model could not be pushed .*hf auth login") as caught:
        push(folder, "team/model", endpoint=f"http://127.0.0.1:{hub.server_port}")
    assert "not-a-token" not in str(caught.value)
    with pytest.raises(FailureError, match="could not be pushed"):
        push(folder, "no owner/no/name", endpoint=f"http://127.0.0.1:{hub.server_port}")
