"""Databases that an audit may be kept in: SQLite files and PostgreSQL, opened so that commits last."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from guardrail.errors import AuditError, MissingExtraError, UsageError

try:
    from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
    from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError, StatementError
    from sqlalchemy.exc import TimeoutError as PoolTimeoutError
except ImportError as missing:
    raise MissingExtraError(feature="an audit", extra="audit") from missing

from guardrail.audit.schema import prepare, schema_version

__all__ = ["Database", "file_of"]

BUSY_SECONDS = 30
"""How long a writer waits for another one's lock."""
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Database:
    """An audit's database, whose tables are made at first use.

    ``where`` is an SQLite file (``audit.db``, ``sqlite:///audit.db``) or a PostgreSQL URL; as an attribute it
    is a URL without its password. Raises UsageError for any other. Safe to share between threads.
    """

    def __init__(self, where: str | Path) -> None:
        url = _url(where)
        self.where: str = url.render_as_string(hide_password=True)
        self.is_sqlite: bool = url.drivername == "sqlite"
        self._engine = _engine(url)
        self._prepared = False
        self._preparing = threading.Lock()
        _engines.add(self._engine)
        weakref.finalize(self, self._engine.dispose)

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Connection]:
        """A transaction; AuditError, without any text, for whatever the database has against it."""
        self.prepare()
        with self._begin(write=write) as connection:
            yield connection

    def prepare(self) -> None:
        """Makes the tables if there are none, or brings them up to date; AuditError if it cannot."""
        with self._preparing:
            if not self._prepared:
                with self._begin(write=True) as connection:
                    prepare(connection, where=self.where)
                self._prepared = True

    def holds_audit(self) -> bool:
        """True if the tables of an audit are there; AuditError if the database does not work."""
        with self._begin(write=False) as connection:
            return inspect(connection).has_table(schema_version.name)

    def close(self) -> None:
        """Closes the connections; a later call opens new ones."""
        self._engine.dispose()

    @contextmanager
    def _begin(self, *, write: bool) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                chosen = connection.execution_options(guardrail_write=write)
                with chosen.begin():
                    yield chosen
        except (StatementError, PoolTimeoutError) as error:
            raise AuditError(f"the audit {self.where} does not work: {_cause(error)}") from None


def _url(where: str | Path) -> URL:
    """The database's URL; UsageError for what is neither an SQLite file nor PostgreSQL."""
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(Path(where).expanduser()))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise UsageError("the audit's URL cannot be read; write postgresql://user@host/database") from None
    if url.drivername in ("postgres", "postgresql", "postgresql+psycopg"):
        return url.set(drivername="postgresql+psycopg")
    if url.drivername != "sqlite":
        raise UsageError(f"an audit goes into SQLite or PostgreSQL, not into {url.drivername!r}")
    if url.database in (None, "", ":memory:"):
        raise UsageError("an audit in memory would be lost with the process: name a file")
    return url


def file_of(where: str | Path) -> Path | None:
    """The SQLite file of an audit; None for PostgreSQL. UsageError for any other."""
    url = _url(where)
    return Path(str(url.database)) if url.drivername == "sqlite" else None


def _engine(url: URL) -> Engine:
    if url.drivername == "sqlite":
        _create_private(Path(str(url.database)))
        engine = create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _open_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    try:
        return create_engine(
            url,
            hide_parameters=True,
            pool_pre_ping=True,
            # Statements are not prepared: after some calls the server would plan them without their values,
            # and could not see how few rows lie between two places.
            connect_args={"connect_timeout": BUSY_SECONDS, "prepare_threshold": None},
        )
    except ImportError as error:
        raise MissingExtraError(feature="an audit in PostgreSQL", extra="postgresql") from error


def _create_private(path: Path) -> None:
    """Makes the file for its owner alone: it may hold what nobody was to see."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise AuditError(f"cannot open the audit {path}: {error.strerror}") from error


def _open_sqlite(connection: Any, record: object) -> None:
    """Durable commits that readers do not hold up."""
    connection.isolation_level = None  # transactions begin where _begin_sqlite says so
    for attempt in Retrying(
        retry=retry_if_exception_type(sqlite3.OperationalError),  # another process is changing the mode
        stop=stop_after_delay(BUSY_SECONDS),
        wait=wait_random(0, 0.05),
        reraise=True,
    ):
        with attempt:
            connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # what is pruned is not to stay in free pages


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: one that asks for it later may be refused without waiting."""
    writes = connection.get_execution_options().get("guardrail_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _cause(error: SQLAlchemyError) -> str:
    """Why, in the database's words if these cannot quote a value; else the error's type."""
    original = getattr(error, "orig", None)
    is_no_database = type(original) is sqlite3.DatabaseError  # a kind of its own for errors of values
    if original is not None and (isinstance(error, OperationalError) or is_no_database):
        return str(original).strip().partition("\n")[0]
    return type(error).__name__


def _forget_connections() -> None:
    for engine in _engines:
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):  # a forked child must not talk over its parent's connections
    os.register_at_fork(after_in_child=_forget_connections)
