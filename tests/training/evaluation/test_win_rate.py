"""A judge behind an endpoint: the real client against a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail.errors import PluginError, UsageError
from guardrail_training.cli import app
from guardrail_training.evaluation.win_rate import Duel, connect, endpoint_judge, read_duels, win_rate


class Judge(BaseHTTPRequestHandler):
    """Prefers the answer that has 'kind' in it; without one, always the first."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = asked["messages"][0]["content"]
        first, second = question.partition("Answer A:")[2].split("Answer B:")
        status = 500 if "fail" in question else 200
        said = "**B**" if "kind" in second.partition("\n\nWhich")[0] and "kind" not in first else "A."
        body = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}]})
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *arguments: Any) -> None:
        """Nothing: the default writes to standard error."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def write(path: Path, answers: Sequence[str]) -> Path:
    rows = [{"prompt": f"p{place}", "response": answer} for place, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_command_counts_wins_losses_and_ties_of_both_orders(endpoint: str, tmp_path: Path) -> None:
    ours = write(tmp_path / "ours.jsonl", ["kind", "kind", "rude", "same"])
    theirs = write(tmp_path / "theirs.jsonl", ["rude", "rude", "kind", "same"])

    done = CliRunner().invoke(
        app, ["win-rate", str(ours), str(theirs), "--endpoint", endpoint, "--judge", "small"]
    )

    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert (found["won"], found["lost"], found["tied"], found["first"]) == (2, 1, 1, 1)
    assert found["rate"]["value"] == 0.625
    assert found["rate"]["n"] == 4


def test_a_failing_endpoint_is_one_error_that_quotes_nothing(endpoint: str) -> None:
    client = connect(endpoint).with_options(max_retries=0)

    with pytest.raises(PluginError, match="status 500") as caught:
        win_rate([Duel("fail zebra", "a", "b")], endpoint_judge(client, model="small"), seed=0)
    assert "zebra" not in str(caught.value)


def test_a_text_that_holds_a_placeholder_stays_a_text() -> None:
    asked: list[str] = []

    def judge(questions: Sequence[str]) -> list[str]:
        asked.extend(questions)
        return ["A"] * len(questions)

    found = win_rate([Duel("{second}", "{first}", "b")], judge, seed=0)

    assert "Prompt: {second}\n\nAnswer A:\n{first}\n\nAnswer B:\nb\n\n" in asked[0]
    assert (found.tied, found.first) == (1, 1)


def test_files_without_a_common_prompt_are_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "b.jsonl").write_text('{"prompt": "other", "response": "y"}\n')

    with pytest.raises(UsageError, match="have no prompt in common"):
        read_duels(first, tmp_path / "b.jsonl")
