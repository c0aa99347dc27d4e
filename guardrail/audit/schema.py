"""The tables of an audit, and the version that says which code can read them."""

from __future__ import annotations

from datetime import datetime, timezone

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    inspect,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.dml import Insert
from sqlalchemy.types import TypeDecorator

from guardrail.errors import AuditError

__all__ = ["VERSION", "insert_once", "interventions", "prepare", "reviews", "schema_version"]

VERSION = 5
"""Raised by one with every change of the tables; a store of a later version is refused, not guessed at."""

_LOCK = 0x67756172  # any number that other programs in the same database are unlikely to lock


class Utc(TypeDecorator[datetime]):
    """Moments in UTC, which SQLite keeps without their zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC whatever zone it came in."""
        return None if value is None else value.astimezone(timezone.utc)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """With its zone."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=timezone.utc)


class Readable(TypeDecorator[str]):
    """Text as databases take it: half surrogate pairs and NUL, which they refuse, become U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Storable text."""
        if value is None:
            return None
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole.replace("\0", "\ufffd")


DECISIONS = "decision IN ('accepted', 'corrected', 'rejected')"

_metadata = MetaData()
_Number = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself there

schema_version = Table("guardrail_schema", _metadata, Column("version", Integer, nullable=False))

interventions = Table(
    "guardrail_interventions",
    _metadata,
    Column("id", _Number, primary_key=True),
    Column("at", Utc, nullable=False),
    Column("text_key", String(200), nullable=False, comment="the text it belongs to"),
    Column("kind", String(8), CheckConstraint("kind IN ('edit', 'degraded')"), nullable=False),
    Column("start", Integer, nullable=False, comment="first character in the original text"),
    Column("end", Integer, nullable=False, comment="behind the last character"),
    Column("hmac", String(32), nullable=False, comment="of the segment before, or the degraded text"),
    Column("action", String(16), nullable=False),
    Column("scores", JSON, nullable=False, comment="per label, 0..1"),
    Column("scores_after", JSON),
    Column("similarity", Float, comment="cosine of rewrite and original"),
    Column("acceptable", Float, comment="the verifier's probability that a reader accepts the rewrite"),
    Column("failed_checks", JSON, nullable=False),
    Column("degraded", JSON, nullable=False),
    Column("monitored", Boolean, nullable=False, server_default=false(), comment="nothing was done"),
    Column("policy", String(16), nullable=False, comment="digest of all settings"),
    Column("policy_name", String(64), nullable=False, server_default=""),
    Column("detector", String(300), nullable=False),
    Column("lexicon", String(300), nullable=False),
    Column("rewriter", String(300), nullable=False),
    Column("before", Readable, comment="only if texts are kept"),
    Column("after", Readable, comment="only if texts are kept"),
    UniqueConstraint("text_key", "kind", "start", name="guardrail_once"),
    Index("guardrail_interventions_place", "at", "id"),
    Index("guardrail_interventions_action", "action", "monitored", "at", "id"),
    Index("guardrail_interventions_policy", "policy", "at", "id"),
    Index("guardrail_interventions_policy_name", "policy_name", "at", "id"),
)

reviews = Table(
    "guardrail_reviews",
    _metadata,
    Column("id", _Number, primary_key=True),
    Column("intervention", ForeignKey(interventions.c.id), nullable=False, index=True),
    Column("at", Utc, nullable=False),
    Column("decision", String(16), CheckConstraint(DECISIONS), nullable=False),
    Column("correction", Readable),
    Column("reviewer", String(100), nullable=False),
    Column(
        "confirmed",
        JSON(none_as_null=True),
        comment="checks that refuse the correction, which the reviewer confirmed all the same; "
        "NULL if nothing was checked",
    ),
    Index("guardrail_reviews_decision", "decision", "intervention"),
)

_NAMED = ("id", "intervention", "at", "decision", "correction", "reviewer", "confirmed")
_COLUMNS = ", ".join(_NAMED)
_MONITORED = (
    f"ALTER TABLE {interventions.name} ADD COLUMN monitored BOOLEAN NOT NULL DEFAULT FALSE",
    f"ALTER TABLE {interventions.name} ADD COLUMN policy_name VARCHAR(64) NOT NULL DEFAULT ''",
)
MIGRATIONS: dict[int, dict[str, tuple[str, ...]]] = {
    1: dict.fromkeys(("sqlite", "postgresql"), (f"ALTER TABLE {reviews.name} ADD COLUMN confirmed JSON",)),
    2: dict.fromkeys(  # and actions lossy and removed
        ("sqlite", "postgresql"), (f"ALTER TABLE {interventions.name} ADD COLUMN acceptable FLOAT",)
    ),
    3: {
        "sqlite": (  # which cannot change a constraint: the table is made anew
            *_MONITORED,
            f"DROP INDEX ix_{reviews.name}_intervention",
            f"ALTER TABLE {reviews.name} RENAME TO {reviews.name}_3",
            str(CreateTable(reviews).compile(dialect=sqlite.dialect())),
            f"CREATE INDEX ix_{reviews.name}_intervention ON {reviews.name} (intervention)",
            f"INSERT INTO {reviews.name} ({_COLUMNS}) SELECT {_COLUMNS} FROM {reviews.name}_3",
            f"DROP TABLE {reviews.name}_3",
        ),
        "postgresql": (
            *_MONITORED,
            f"ALTER TABLE {reviews.name} DROP CONSTRAINT {reviews.name}_decision_check",
            f"ALTER TABLE {reviews.name} ADD CONSTRAINT {reviews.name}_decision_check CHECK ({DECISIONS})",
        ),
    },
    4: dict.fromkeys(
        ("sqlite", "postgresql"),
        (
            f"DROP INDEX {interventions.name}_at",
            *(
                f"CREATE INDEX {interventions.name}_{name} ON {interventions.name} ({columns})"
                for name, columns in (
                    ("place", "at, id"),
                    ("action", "action, monitored, at, id"),
                    ("policy", "policy, at, id"),
                    ("policy_name", "policy_name, at, id"),
                )
            ),
            f"CREATE INDEX {reviews.name}_decision ON {reviews.name} (decision, intervention)",
        ),
    ),
}
"""What makes the tables of each earlier version those of the next, by dialect."""


def prepare(connection: Connection, *, where: str) -> None:
    """Makes the tables if there are none, and brings those of an earlier version up to date.

    AuditError if they are those of a later one. To be called in a transaction that writes: of several
    processes that start at once, one makes them.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    if not inspect(connection).has_table(schema_version.name):
        _metadata.create_all(connection)
        connection.execute(schema_version.insert().values(version=VERSION))
        return
    found = connection.execute(select(schema_version.c.version)).scalar()
    while found in MIGRATIONS:
        for statement in MIGRATIONS[found][connection.dialect.name]:
            connection.exec_driver_sql(statement)
        found += 1
        connection.execute(schema_version.update().values(version=found))
    if found != VERSION:
        age = "a newer" if found is not None and found > VERSION else "an older"
        raise AuditError(
            f"the audit {where} has schema {found}, {age} one than this version's {VERSION}: "
            "use the version of detox-guardrail that wrote it, or another audit"
        )


def insert_once(connection: Connection) -> Insert:
    """Adds interventions, and leaves those alone that are there already."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(interventions).on_conflict_do_nothing()
    return postgresql.insert(interventions).on_conflict_do_nothing()
