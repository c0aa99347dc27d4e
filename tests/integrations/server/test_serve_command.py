"""``guardrail serve`` as a user starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI
from typer.testing import CliRunner

from guardrail.integrations.cli import app
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
def started(*arguments: str, logs: str = "", **environment: str) -> Iterator[str]:
    """The command in a process of its own; its address, taken from what it prints. ``logs`` must be there."""
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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
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
