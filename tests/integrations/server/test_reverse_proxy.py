"""The nginx configuration of docs/server.md, before the real server; skipped where nginx is not installed."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from guardrail.integrations.openai_server import Keys
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    PROXY_KEY,
    TOXIC,
    Upstream,
    completion,
    delta,
    get,
    post,
    proxy,
)
from tests.waiting import PATIENCE, wait_until

DOCUMENT = Path(__file__).parents[3] / "docs" / "server.md"
NGINX = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
HEAD_SECONDS = "300ms"
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt-get install nginx-light")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def reverse_proxy(server: str, folder: Path) -> Iterator[str]:
    """nginx as documented, but without TLS and with little patience; its address."""
    port = free_port()
    (block,) = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    for said, here in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port};"),
        ("http://127.0.0.1:8080", server),
        ("client_header_timeout 30s", f"client_header_timeout {HEAD_SECONDS}"),
    ):
        assert said in block
        block = block.replace(said, here)
    block = re.sub(r" *ssl_certificate.*\n", "", block)
    temporary = "".join(
        f"{name}_temp_path {folder};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    outside = f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
    configuration = folder / "nginx.conf"
    configuration.write_text(f"{outside}http {{\naccess_log off;\n{temporary}{block}}}\n", encoding="utf-8")
    command = [str(NGINX), "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: is_open(port))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def address(upstream: Upstream, tmp_path: Path) -> Iterator[str]:
    with proxy(upstream, keys=Keys(proxy=(PROXY_KEY,))) as server, reverse_proxy(server, tmp_path) as url:
        yield url


def test_answers_and_streams_come_through(address: str, upstream: Upstream) -> None:
    with OpenAI(base_url=f"{address}/v1", api_key=PROXY_KEY, max_retries=0) as client:
        question: list[dict[str, str]] = [{"role": "user", "content": "Hello"}]
        upstream.reply = lambda asked: completion([TOXIC])
        answer = client.chat.completions.create(model="m", messages=question)  # type: ignore[arg-type]  # plain
        assert answer.choices[0].message.content == MENDED
        upstream.says(delta(f"{CLEAN} "), delta(TOXIC), delta(reason="stop"), "[DONE]")
        chunks = client.chat.completions.create(model="m", messages=question, stream=True)  # type: ignore[call-overload]  # plain
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == f"{CLEAN} {MENDED}"


def test_our_own_page_is_answered_and_keys_are_asked_for(address: str) -> None:
    headers = {"origin": address, "authorization": f"Bearer {PROXY_KEY}"}
    assert post(f"{address}/v1/detoxify", json={"input": "Fine."}, headers=headers).status_code == 200
    assert get(f"{address}/metrics").status_code == 401


def test_a_head_that_does_not_arrive_in_time_ends_its_connection(address: str) -> None:
    url = httpx.URL(address)
    with socket.create_connection((url.host, url.port or 0), timeout=PATIENCE) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127")
        assert not connection.recv(64).startswith(b"HTTP/1.1 200")


def test_heads_and_bodies_beyond_the_limits_stop_at_the_reverse_proxy(address: str) -> None:
    assert get(f"{address}/healthz", headers={"x-long": "x" * 20_000}).status_code == 400
    assert post(f"{address}/v1/detoxify", content=b"x" * (5 << 20)).status_code == 413
