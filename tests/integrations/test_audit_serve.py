"""guardrail serve --audit: what was told to a client is on disk, whatever becomes of the server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guardrail.audit.database import Database
from guardrail.integrations.audit.records import Query, page
from tests.integrations.server.running import get, post
from tests.waiting import PATIENCE

ADDRESS = re.compile(r"running on (http://\S+)")
KEY = "alices-key-0123456789"


def test_a_server_killed_after_its_reply_has_recorded_it_and_shows_it_again(
    where: str, tmp_path: Path
) -> None:
    command = [str(Path(sys.executable).parent / "guardrail"), "serve", "--port", "0"]
    command += ["--audit", where, "--audit-text"]
    environ = os.environ | {
        "NO_PROXY": "127.0.0.1",
        "GUARDRAIL_MODELS__REWRITER": "none",
        "GUARDRAIL_AUDIT_KEYS": f"alice={KEY}",
    }
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        found = next(match for line in server.stderr if (match := ADDRESS.search(line)))
        told = post(f"{found[1]}/v1/detoxify", json={"input": "You are such an idiot, my friend."})
        listed = get(f"{found[1]}/audit/interventions", headers={"authorization": f"Bearer {KEY}"})
        server.kill()
        shown = server.stderr.read()
    outcome = told.json()["outcomes"][0]
    assert outcome["action"] == "masked"
    database = Database(where)
    (record,) = page(database, Query(action="masked")).records
    database.close()
    assert record.after == outcome["edits"][0]["after"]
    assert [one["id"] for one in listed.json()["records"]] == [record.id]
    assert record.detector.startswith("detox-minilm ")
    assert "idiot" not in shown
    assert KEY not in shown


@pytest.mark.parametrize("keys", ["alice", "alice=short"])
def test_keys_that_cannot_be_meant_stop_the_server_before_it_listens(keys: str, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "guardrail"), "serve", "--audit", str(tmp_path / "a.db")]
    environ = os.environ | {"GUARDRAIL_AUDIT_KEYS": keys, "GUARDRAIL_MODELS__REWRITER": "none"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert "GUARDRAIL_AUDIT_KEYS" in done.stderr
