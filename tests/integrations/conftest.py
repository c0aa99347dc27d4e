"""Databases for audits: SQLite, and PostgreSQL of this run's own; an upstream for guarded clients."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integrations.server import running
from tests.integrations.server.running import Upstream, serving
from tests.waiting import PATIENCE

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes a new database and gives its URL; skips where PostgreSQL is not installed."""
    if not PROGRAMS:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # short: it is part of the name of a socket
    # PostgreSQL refuses to run as root, its package brings a user.
    user = pwd.getpwnam("postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
    os.chown(folder, user.pw_uid, user.pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [PROGRAMS[-1] / program, *arguments],
            cwd=folder,
            user=user.pw_uid if os.getuid() == 0 else None,
            group=user.pw_gid if os.getuid() == 0 else None,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PGHOST": str(folder), "PGUSER": "officer"},
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=PATIENCE,
        )

    run("initdb", "-D", f"{folder}/data", "-U", "officer", "-A", "trust", "-E", "UTF8", "--no-sync")
    listening = f"-c listen_addresses='' -c unix_socket_directories='{folder}'"
    waiting = ("-w", "-t", str(int(PATIENCE)))
    run("pg_ctl", "start", *waiting, "-D", f"{folder}/data", "-o", listening, "-l", f"{folder}/log")

    def create() -> str:
        name = f"audit{next(NUMBERS)}"
        run("createdb", name)
        return f"postgresql://officer@/{name}?host={folder}"

    try:
        yield create
    finally:
        run("pg_ctl", "stop", "-m", "immediate", "-D", f"{folder}/data")
        shutil.rmtree(folder)


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
