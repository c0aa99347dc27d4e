"""An upstream and a proxy before it, for every test of the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.integrations.server import running


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither proxies nor keys of the machine that runs the tests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    for name in ("GUARDRAIL_PROXY_KEYS", "GUARDRAIL_UPSTREAM_KEY", "GUARDRAIL_CONFIG", "OPENAI_LOG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[running.Upstream]:
    upstream = running.Upstream()
    with running.serving(upstream.app()) as url:
        upstream.url = url
        yield upstream


@pytest.fixture
def upstream(upstream_server: running.Upstream) -> running.Upstream:
    """What a language model's server says; a test sets its reply."""
    upstream_server.asked.clear()
    upstream_server.reply = running.Upstream().reply
    return upstream_server


@pytest.fixture(scope="session")
def url(upstream_server: running.Upstream) -> Iterator[str]:
    """The address of a proxy without keys before the upstream."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1,localhost")
        with running.proxy(upstream_server) as address:
            yield address


@pytest.fixture(scope="session")
def opened_client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="client-key", max_retries=0) as opened:
        yield opened


@pytest.fixture
def client(opened_client: OpenAI, upstream: running.Upstream) -> OpenAI:
    """The real client before the proxy."""
    return opened_client
