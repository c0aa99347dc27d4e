"""Audits of every earlier schema: opened by this version, they hold what they held, in its tables."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, inspect
from typer.testing import CliRunner

from guardrail.audit.database import Database
from guardrail.audit.schema import MIGRATIONS, VERSION, schema_version
from guardrail.audit.store import AuditStore
from guardrail.errors import AuditError
from guardrail.integrations.audit.records import Query, page, record_of
from guardrail.integrations.audit.review import decide, pairs
from guardrail.integrations.cli import app
from tests.waiting import PATIENCE

SCHEMAS = Path(__file__).parent / "audit_schemas"
OLD = range(1, VERSION)
COLUMNS = (
    *(
        "at",
        "text_key",
        "kind",
        "start",
        '"end"',
        "hmac",
        "action",
        "scores",
        "scores_after",
        "failed_checks",
    ),
    *("degraded", "policy", "detector", "lexicon", "rewriter", "before", "after"),
)
ROWS = [
    *("'2026-01-0{0} 10:20:30.000456{1}'", "'text {0}'", "'edit'", "0", "17", "'abc{0}'", "'rewritten'"),
    *(
        "'{{\"toxicity\": 0.75}}'",
        "'{{\"toxicity\": 0.25}}'",
        "'[\"meaning\"]'",
        "'[]'",
        "'0123456789abcdef'",
    ),
    *("'detector 1'", "'lexicon 1'", "'rewriter 1'", "'You idiot {0}.'", "'You person {0}.'"),
]


def tables(where: str, version: int) -> None:
    """An audit as an earlier version made it: three rewrites, the first accepted, the second corrected."""
    database = Database(where)
    kind, zone = ("sqlite", "") if database.is_sqlite else ("postgresql", "+00")
    with database._begin(write=True) as connection:
        for statement in (SCHEMAS / f"{kind}-{version}.sql").read_text().split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"INSERT INTO guardrail_schema VALUES ({version})")
        for number in (1, 2, 3):
            values = ", ".join(ROWS).format(number, zone)
            connection.exec_driver_sql(
                f"INSERT INTO guardrail_interventions ({', '.join(COLUMNS)}) VALUES ({values})"
            )
        decided = "INSERT INTO guardrail_reviews (intervention, at, decision, correction, reviewer) VALUES"
        at = f"'2026-02-01 00:00:00.000000{zone}'"
        connection.exec_driver_sql(f"{decided} (1, {at}, 'accepted', NULL, 'alice')")
        connection.exec_driver_sql(f"{decided} (2, {at}, 'accepted', NULL, 'alice')")
        connection.exec_driver_sql(f"{decided} (2, {at}, 'corrected', 'You are wrong.', 'bob')")
    database.close()


def shape(connection: Connection) -> dict[str, Any]:
    """Columns, constraints and indexes of the tables, whatever order they were made in."""
    found = inspect(connection)
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"])
                for column in found.get_columns(table)
            },
            "indexes": sorted((one["name"], one["column_names"]) for one in found.get_indexes(table)),
            "unique": sorted(one["column_names"] for one in found.get_unique_constraints(table)),
            "checks": sorted(one["sqltext"] for one in found.get_check_constraints(table)),
            "foreign": [
                (one["constrained_columns"], one["referred_table"]) for one in found.get_foreign_keys(table)
            ],
        }
        for table in sorted(found.get_table_names())
    }


def test_there_is_a_schema_of_every_earlier_version_and_a_step_from_it() -> None:
    kinds = ("sqlite", "postgresql")
    assert {path.stem for path in SCHEMAS.glob("*.sql")} == {f"{kind}-{v}" for kind in kinds for v in OLD}
    assert [*MIGRATIONS] == [*OLD]


@pytest.mark.parametrize("version", OLD)
def test_an_old_audit_has_the_tables_of_a_new_one_once_it_is_opened(
    where: str, version: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tables(where, version)
    new = str(tmp_path / "new.db") if where.startswith("sqlite") else request.getfixturevalue("postgresql")()
    shapes = []
    for one in (where, new):
        store = AuditStore(one)
        with store.database.transaction() as connection:
            assert connection.execute(schema_version.select()).scalars().all() == [VERSION]
            shapes.append(shape(connection))
        store.close()
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("version", OLD)
def test_an_old_audit_keeps_its_records_and_decisions(where: str, version: int) -> None:
    tables(where, version)
    store = AuditStore(where)
    found = page(store.database, Query()).records
    assert [(one.id, one.text_key, one.decision, one.correction) for one in found] == [
        (3, "text 3", None, None),
        (2, "text 2", "corrected", "You are wrong."),
        (1, "text 1", "accepted", None),
    ]
    assert (found[0].scores, found[0].scores_after, found[0].failed_checks) == (
        {"toxicity": 0.75},
        {"toxicity": 0.25},
        ["meaning"],
    )
    assert (found[0].monitored, found[0].policy_name, found[0].acceptable) == (False, "", None)
    assert found[0].at.isoformat() == "2026-01-03T10:20:30.000456+00:00"
    with store.database.transaction() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM guardrail_reviews").scalar() == 3
    store.close()


@pytest.mark.parametrize("version", [1, VERSION - 1])
def test_an_old_audit_takes_every_decision_and_finds_it(where: str, version: int) -> None:
    tables(where, version)
    store = AuditStore(where)
    assert decide(store.database, 3, "rejected", reviewer="alice").decision == "rejected"
    assert [one.id for one in page(store.database, Query(review="rejected")).records] == [3]
    assert [one.id for one in page(store.database, Query(action="rewritten", mode="enforced")).records] == [
        3,
        2,
        1,
    ]
    assert [one.id for one in page(store.database, Query(policy="0123456789abcdef")).records] == [3, 2, 1]
    store.close()


def test_corrections_that_the_oldest_version_did_not_check_stay_out_of_the_export(
    where: str, tmp_path: Path
) -> None:
    tables(where, 1)
    result = CliRunner().invoke(app, ["audit", "export", str(tmp_path / "out.jsonl"), "--audit", where])
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("1 pairs\ncorrections left out as nothing checked them: 1;")
    again = AuditStore(where)
    assert record_of(again.database, 2).confirmed is None
    assert [pair.toxic for pair in pairs(again.database)] == ["You idiot 1."]
    again.close()


def test_processes_that_open_an_old_audit_together_bring_it_up_to_date_once(where: str) -> None:
    tables(where, 1)
    script = "import sys; from guardrail.audit.store import AuditStore; AuditStore(sys.argv[1])"
    started = [subprocess.Popen([sys.executable, "-c", script, where]) for _ in range(3)]
    assert [process.wait(timeout=PATIENCE) for process in started] == [0, 0, 0]
    store = AuditStore(where)
    assert page(store.database, Query()).total == 3
    store.close()


def test_a_step_that_fails_leaves_the_old_audit_as_it_was(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables(where, 1)
    steps = MIGRATIONS[VERSION - 1]
    broken = {kind: (*statements, "DROP TABLE no_such_table") for kind, statements in steps.items()}
    monkeypatch.setitem(MIGRATIONS, VERSION - 1, broken)
    before = contents(where)
    with pytest.raises(AuditError):
        AuditStore(where)
    assert contents(where) == before
    monkeypatch.undo()
    store = AuditStore(where)
    assert page(store.database, Query()).total == 3
    store.close()


def contents(where: str) -> tuple[Any, ...]:
    database = Database(where)
    with database._begin(write=False) as connection:
        rows = connection.exec_driver_sql("SELECT * FROM guardrail_reviews ORDER BY id").all()
        found = (shape(connection), rows, connection.execute(schema_version.select()).scalar())
    database.close()
    return found


def test_an_old_file_is_brought_up_to_date_by_the_command_that_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    tables(str(file), VERSION - 1)
    result = CliRunner().invoke(app, ["audit", "prune", "--older-than", "1d", "--audit", str(file)])
    assert (result.exit_code, result.stderr) == (0, "3 interventions removed\n")
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT version FROM guardrail_schema").fetchall() == [(VERSION,)]
        assert connection.execute("SELECT count(*) FROM guardrail_reviews").fetchone() == (0,)
    connection.close()
