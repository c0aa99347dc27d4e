"""LiteLLM: our guardrail in its real proxy, in a process of its own, and streams of its SDK."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

litellm = pytest.importorskip("litellm", reason="pip install 'litellm[proxy]'")

from openai import OpenAI

from tests.integrations.server.running import Upstream, completion, delta, events, post
from tests.streaming import CLEAN, NEUTRAL, TOXIC, guard
from tests.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parents[2]
KEY = "sk-f3b1c8d2a9e74c5588d0b7b6f1a2c3d4"
CONFIG = """
model_list:
  - model_name: small
    litellm_params: {{model: openai/small-1, api_base: "{upstream}/v1", api_key: none}}
general_settings: {{master_key: {key}}}
guardrails:
  - guardrail_name: detox
    litellm_params: {{guardrail: ours.{name}, mode: post_call, default_on: true}}
"""
OURS = """
from guardrail import Policy
from guardrail.integrations.litellm import DetoxGuardrail
from tests.streaming import guard

class Rewrites(DetoxGuardrail):
    def __init__(self, **options):
        super().__init__(guard(), **options)

class Raises(DetoxGuardrail):
    def __init__(self, **options):
        super().__init__(guard(Policy(ladder=("block",), block="raise")), **options)
"""


@contextmanager
def proxy(folder: Path, upstream: str, name: str) -> Iterator[str]:
    """LiteLLM's proxy with the guardrail of this name; its address."""
    (folder / "ours.py").write_text(OURS)
    config = folder / "litellm.yaml"
    config.write_text(CONFIG.format(upstream=upstream, key=KEY, name=name))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    program = str(Path(sys.executable).with_name("litellm"))
    environ = os.environ | {
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    url = f"http://127.0.0.1:{port}"

    def is_up() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            return httpx.get(f"{url}/health/liveliness", timeout=PATIENCE).status_code == 200
        except httpx.ConnectError:
            return False

    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", port]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_until(is_up)
            yield url
        finally:
            process.terminate()


def answer(asked: Any) -> Any:
    """An upstream's answer, whole or streamed in words."""
    if asked.path.endswith("/embeddings"):
        from starlette.responses import JSONResponse

        row = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return JSONResponse({"object": "list", "data": [row], "model": "small-1", "usage": usage})
    if not asked.body.get("stream"):
        return completion([f"{CLEAN} {TOXIC}"])
    words = [delta(f"{word} ") for word in f"{CLEAN} {TOXIC}".split(" ")]
    return events([*words, delta(reason="stop"), "[DONE]"])


QUESTION: Any = {"model": "small", "messages": [{"role": "user", "content": "Who drives?"}]}


def test_answers_and_streams_of_the_real_proxy_are_rewritten(upstream: Upstream, tmp_path: Path) -> None:
    upstream.reply = answer
    with (
        proxy(tmp_path, upstream.url, "Rewrites") as url,
        OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=PATIENCE) as client,
    ):
        whole = client.chat.completions.create(**QUESTION)
        assert whole.choices[0].message.content == f"{CLEAN} {NEUTRAL}"
        chunks = list(client.chat.completions.create(**QUESTION, stream=True))
        said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert said.strip() == f"{CLEAN} {NEUTRAL}"
        assert [c.finish_reason for f in chunks for c in f.choices if c.finish_reason] == ["stop"]
        assert client.embeddings.create(model="small", input="Hello").data[0].embedding


def test_a_policy_that_raises_is_a_400_of_the_real_proxy(upstream: Upstream, tmp_path: Path) -> None:
    upstream.reply = answer
    with proxy(tmp_path, upstream.url, "Raises") as url:
        headers = {"authorization": f"Bearer {KEY}"}
        refused = post(f"{url}/v1/chat/completions", json=QUESTION, headers=headers)
        assert refused.status_code == 400
        assert "idiot" not in refused.text
        streamed = post(f"{url}/v1/chat/completions", json=QUESTION | {"stream": True}, headers=headers)
        assert "idiot" not in streamed.text


@pytest.mark.parametrize("is_async", [False, True])
def test_streams_of_its_sdk_go_through_wrap(upstream: Upstream, is_async: bool) -> None:
    upstream.reply = answer
    options = QUESTION | {"model": "openai/small-1", "api_base": f"{upstream.url}/v1", "api_key": "k"}

    async def run() -> list[Any]:
        stream = await guard().wrap(litellm.acompletion)(**options, stream=True)
        return [chunk async for chunk in stream]

    chunks = (
        asyncio.run(run()) if is_async else list(guard().wrap(litellm.completion)(**options, stream=True))
    )
    said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert said.strip() == f"{CLEAN} {NEUTRAL}"


def test_an_answer_of_another_kind_is_refused() -> None:
    from fastapi import HTTPException

    from guardrail.integrations.litellm import DetoxGuardrail

    ours = DetoxGuardrail(guard())
    with pytest.raises(HTTPException) as refused:
        asyncio.run(ours.async_post_call_success_hook({}, None, {"type": "message"}))
    assert "guardrail serve" in str(refused.value.detail)
