"""LiteLLM's own proxy with the guard in front of its answers, by configuration alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from guardrail import Policy
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    TOXIC,
    Upstream,
    completion,
    fake_guard,
    post,
    proxy,
)
from tests.waiting import PATIENCE, wait_until

LITELLM = shutil.which("litellm")
MASTER_KEY = "sk-f3b1c8d2a9e74c5588d0b7b6f1a2c3d4"
CONFIG = """
model_list:
  - model_name: small
    litellm_params: {{model: openai/small-1, api_base: "{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
guardrails:
  - guardrail_name: guardrail
    litellm_params:
      guardrail: generic_guardrail_api
      mode: post_call
      default_on: true
      api_base: "{guard}"
"""

pytestmark = pytest.mark.skipif(
    LITELLM is None,
    reason="LiteLLM's proxy is not installed: pip install 'litellm[proxy]' and put it on PATH",
)


@contextmanager
def litellm(folder: Path, *, upstream: str, guard: str) -> Iterator[str]:
    """The proxy in a process of its own; its address."""
    assert LITELLM is not None
    config = folder / "litellm.yaml"
    config.write_text(CONFIG.format(upstream=upstream, guard=guard, key=MASTER_KEY))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [LITELLM, "--config", str(config), "--host", "127.0.0.1", "--port", port]
    # It is another environment's program, and it is to ask nobody for prices.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environ |= {"NO_PROXY": "127.0.0.1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return httpx.get(f"{url}/health/liveliness", timeout=PATIENCE).status_code == 200
        except httpx.ConnectError:
            return False

    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_until(is_up)
            yield url
        finally:
            process.terminate()


def asked(url: str) -> httpx.Response:
    question: Any = {"model": "small", "messages": [{"role": "user", "content": "Who drives?"}]}
    return post(
        f"{url}/v1/chat/completions", json=question, headers={"authorization": f"Bearer {MASTER_KEY}"}
    )


@pytest.mark.parametrize("blocks", [False, True])
def test_answers_behind_litellm_are_rewritten_or_refused(
    upstream: Upstream, tmp_path: Path, blocks: bool
) -> None:
    upstream.reply = lambda asked: completion([f"{CLEAN} {TOXIC}"])
    guard = fake_guard(Policy(ladder=("block",)) if blocks else None)
    with proxy(guard=guard) as guard_url, litellm(tmp_path, upstream=upstream.url, guard=guard_url) as url:
        answer = asked(url)
    if blocks:
        assert answer.status_code == 400
        assert Policy().refusal in answer.text
        assert "idiot" not in answer.text
    else:
        assert answer.json()["choices"][0]["message"]["content"] == f"{CLEAN} {MENDED}"
