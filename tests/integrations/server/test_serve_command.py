"""``guardrail serve`` as a user starts it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import pytest
from openai import OpenAI
from typer.testing import CliRunner

from guardrail.config import LogLevel, ServerSettings
from guardrail.errors import GuardrailWarning
from guardrail.integrations.cli import app
from guardrail.integrations.openai_server.server import JsonFormatter, log_warnings, logging_config
from guardrail.integrations.serve_command import Level
from tests.integrations.server.running import (
    CLEAN,
    PROXY_KEY,
    TOXIC,
    UPSTREAM_KEY,
    Upstream,
    completion,
    get,
    post,
)
from tests.integrations.server.test_completions import ask

ADDRESS = re.compile(r"running on (http://\S+)")


@contextmanager
def started(
    *arguments: str, logs: str = "", lines: list[str] | None = None, **environment: str
) -> Iterator[str]:
    """The command in a process of its own; its address, taken from what it prints.

    ``logs`` must be there; ``lines`` receives what it printed.
    """
    command = [str(Path(sys.executable).parent / "guardrail"), "serve", "--port", "0", *arguments]
    quick = {"NO_PROXY": "127.0.0.1", "GUARDRAIL_MODELS__REWRITER": "none"}
    environ = os.environ | environment | quick
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        printed = []
        try:
            for line in process.stderr:
                printed.append(line)
                if found := ADDRESS.search(line):
                    yield found[1]
                    break
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
    shown = "".join(printed) + rest
    if lines is not None:
        lines += shown.splitlines()
    assert ADDRESS.search(shown), shown
    assert logs in shown
    assert process.returncode in (0, -signal.SIGTERM), shown
    for secret in (PROXY_KEY, UPSTREAM_KEY, "weather", "idiot"):
        assert secret not in shown


def test_the_proxy_is_started_with_one_line_and_ends_on_a_signal(upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([f"{CLEAN} {TOXIC}"])
    with (
        started("--upstream", f"{upstream.url}/v1", logs="action=masked") as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        answer = ask(client).choices[0].message.content
        assert answer == f"{CLEAN} {TOXIC.replace('idiot', 'i****')}"
        assert "playground" in get(url).text


def test_settings_come_from_a_file_under_the_options_and_keys_from_the_environment(
    upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "guardrail.toml"
    file.write_text(
        f'[server]\nupstream = "{upstream.url}/v1"\nport = 1\nmax_body = 300\nallowed_fields = ["note"]\n'
    )
    upstream.reply = lambda asked: completion([CLEAN], note="kept", other="dropped")
    keys = {"GUARDRAIL_PROXY_KEYS": PROXY_KEY, "GUARDRAIL_UPSTREAM_KEY": UPSTREAM_KEY}
    with (
        started("--config", str(file), "--host", "0.0.0.0", **keys) as url,
        OpenAI(base_url=f"{url.replace('0.0.0.0', '127.0.0.1')}/v1", api_key=PROXY_KEY) as client,
    ):
        assert ask(client).choices[0].message.to_dict()["note"] == "kept"
        large = post(str(client.base_url) + "chat/completions", content=b"x" * 400)
    assert large.status_code == 401, "keys are looked at before bodies"
    assert upstream.asked[0].header("authorization") == f"Bearer {UPSTREAM_KEY}"


def test_ladder_and_threshold_of_the_command_line_go_before_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "guardrail.toml"
    file.write_text("[policy]\nladder = ['mask', 'block']\nthreshold = 1.0\nrefusal = '[no]'\n")
    with started("--config", str(file), "--ladder", "block", "--threshold", "0.0") as url:
        (row,) = post(f"{url}/v1/detoxify", json={"input": CLEAN}).json()["outcomes"]
    assert (row["action"], row["text"]) == ("blocked", "[no]")


def test_the_log_is_json_by_line_and_as_detailed_as_asked() -> None:
    lines: list[str] = []
    with started("--log-json", "--log-level", "debug", lines=lines) as url:
        post(f"{url}/v1/detoxify", json={"input": [CLEAN, TOXIC]})
    rows = [json.loads(line) for line in lines]
    assert all({"time", "level", "logger", "message"} <= set(row) for row in rows)
    told = {(row["logger"], row["level"], row["message"].partition(" ")[0]) for row in rows}
    assert {("guardrail", "debug", "action=passed"), ("guardrail", "info", "action=masked")} <= told
    assert any(row["logger"] == "uvicorn.error" for row in rows)


def test_origins_report_and_access_log_are_options() -> None:
    lines: list[str] = []
    with started("--cors", "https://a.example", "--cors", "https://b.example", lines=lines) as url:
        for origin in ("https://a.example", "https://b.example"):
            answer = get(f"{url}/v1/models", headers={"origin": origin, "x-request-id": "mine"})
            assert answer.headers["access-control-allow-origin"] == origin
    assert sum("GET /v1/models 200" in line and "mine" in line for line in lines) == 2
    quiet: list[str] = []
    with started("--no-access-log", "--report", lines=quiet) as url:
        assert get(f"{url}/v1/models").status_code == 200
    assert not any("/v1/models" in line for line in quiet)


def test_a_higher_log_level_leaves_out_what_is_less_grave() -> None:
    settings = ServerSettings(log_level="error")
    told = logging_config(settings)["loggers"]
    assert {name: logger["level"] for name, logger in told.items()} == dict.fromkeys(told, "ERROR")
    assert {"guardrail", "uvicorn.error"} <= set(told)


def test_the_command_line_knows_the_levels_of_the_configuration() -> None:
    assert tuple(level.value for level in Level) == get_args(LogLevel)


@pytest.mark.parametrize("error", [None, ValueError("wrong")])
def test_a_line_of_the_json_log_is_one_object(error: Exception | None) -> None:
    record = logging.LogRecord("guardrail", logging.WARNING, "x.py", 1, "two\nlines %s", ("\udcff",), None)
    if error is not None:
        record.exc_info = (type(error), error, None)
    line = JsonFormatter().format(record)
    row = json.loads(line)
    assert "\n" not in line
    assert (row["level"], row["message"]) == ("warning", "two\nlines \udcff")
    assert row.get("exception") == (None if error is None else "ValueError: wrong")


def test_a_warning_of_python_is_logged_without_its_source(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log_warnings()
        warnings.warn("something is missing", GuardrailWarning, stacklevel=1)
    assert [record.getMessage() for record in caplog.records] == ["something is missing"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ladder", "mask"], "policy ladder must be a part of"),
        (["--ladder", "hide,block"], "--ladder: ladder must be 'rewrite' or 'mask' or 'block', got 'hide'"),
        (["--ladder", ""], "policy ladder must be a part of"),
        (["--threshold", "1.5"], "policy threshold must be between 0 and 1, got 1.5"),
        (["--log-level", "loud"], "'loud' is not one of"),
        (["--cors", "*"], "server cors must list origins such as https://app.example.org, got '*'"),
        (["--host", "0.0.0.0"], "GUARDRAIL_PROXY_KEYS"),
        (["--upstream", "example.org"], "must begin with http"),
        (["--port", "70000"], "between 0 and 65535"),
        (["--allow-field", "tool_calls"], "a meaning of their own"),
    ],
)
def test_what_cannot_work_is_told_at_once(arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["serve", *arguments])
    assert result.exit_code == 2
    assert told in result.stderr


def test_without_the_extra_the_command_names_it() -> None:
    script = (
        "import sys; sys.modules['fastapi'] = None\n"
        "from guardrail.integrations.cli import app\n"
        "sys.argv = ['guardrail', 'serve']; app()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install 'detox-guardrail[server]'")
