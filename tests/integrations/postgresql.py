"""A PostgreSQL server of a run's own, with as many databases as are asked for."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import PATIENCE

__all__ = ["is_installed", "serving_postgresql"]

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def is_installed() -> bool:
    """True if there is a PostgreSQL to start."""
    return bool(PROGRAMS)


@contextmanager
def serving_postgresql() -> Iterator[Callable[[], str]]:
    """Starts a server; each call of what it gives makes a new database and returns its URL."""
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
    numbers = itertools.count(1)

    def create() -> str:
        name = f"audit{next(numbers)}"
        run("createdb", name)
        return f"postgresql://officer@/{name}?host={folder}"

    try:
        yield create
    finally:
        run("pg_ctl", "stop", "-m", "immediate", "-D", f"{folder}/data")
        shutil.rmtree(folder)
