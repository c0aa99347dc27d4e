"""Databases for audits: SQLite, and PostgreSQL of this run's own; an upstream for guarded clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integrations.postgresql import is_installed, serving_postgresql
from tests.integrations.server import running
from tests.integrations.server.running import Upstream, serving


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes a new database and gives its URL; skips where PostgreSQL is not installed."""
    if not is_installed():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with serving_postgresql() as create:
        yield create


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'audit.db'}"
    url: str = request.getfixturevalue("postgresql")()
    return url


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
