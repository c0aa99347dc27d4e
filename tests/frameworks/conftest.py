"""Frameworks warn of many things that are not ours: here warnings are not errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integrations.server import running
from tests.integrations.server.running import Upstream, serving

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="module")
def server() -> Iterator[Upstream]:
    """A model server for a client in process."""
    upstream = Upstream()
    with serving(upstream.app()) as upstream.url:
        yield upstream


@pytest.fixture
def upstream(server: Upstream, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """The same, with its usual reply."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.reply = running.Upstream().reply
    return server
