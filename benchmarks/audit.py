"""How quick an audit of 10^5 or 10^6 rows is: pages, every filter, days, records, prune and export.

Run: ``python -m benchmarks.audit --rows 1000000 --kills 200``. In SQLite, and in PostgreSQL if that is here.
The rows are made up and loaded in bulk; what is timed is the code that a server runs. ``--kills`` plays
``benchmarks.audit_kills`` on a database of each kind, too. The result is ``results/audit-ROWS.json``; of one
``--database`` alone it is ``results/audit-ROWS-DATABASE.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from sqlalchemy import func, select

from benchmarks.audit_kills import intervention
from benchmarks.audit_rows import RARE_WORD, fill
from benchmarks.measure import PACKAGES, Claim, report
from guardrail.audit.database import Database
from guardrail.audit.schema import interventions
from guardrail.audit.store import AuditStore
from guardrail.integrations.audit.export import export_pairs, export_records
from guardrail.integrations.audit.records import Query, days, page
from guardrail.integrations.audit.retention import ROWS_AT_ONCE, prune
from guardrail.integrations.audit.review import decide
from tests.integrations.postgresql import is_installed, serving_postgresql

ROUNDS = 20
MAX_MS = 200.0
PRUNED = 10
"""Portions of rows that are removed, to time one."""
WRITERS = 4
RECORDED = 100
"""Rows that each of several writers records."""


def queries(database: Database) -> dict[str, Query]:
    """What a reviewer may ask for: every filter, common, rare and without a hit, and several together."""
    with database.transaction() as connection:
        last = connection.exec_driver_sql("SELECT max(id) FROM guardrail_interventions").scalar_one()
        row = connection.exec_driver_sql(
            f"SELECT text_key, before FROM guardrail_interventions WHERE id = {last // 3}"
        ).one()
    now = datetime.now(timezone.utc)
    return {
        "no filter": Query(),
        "no filter, in the middle": Query(before=last // 2),
        "no filter, the last page": Query(before=40),
        "no filter, 200 rows": Query(limit=200),
        "action, common": Query(action="rewritten"),
        "action, in the middle": Query(action="rewritten", before=last // 2),
        "action, rare": Query(action="blocked"),
        "mode": Query(mode="monitored"),
        "mode enforced, in the middle": Query(mode="enforced", before=last // 2),
        "label": Query(label="threat", least=0.5),
        "label, no hit": Query(label="threat", least=1.0),
        "since": Query(since=now - timedelta(days=7)),
        "until": Query(until=now - timedelta(days=60)),
        "a day in the past": Query(since=now - timedelta(days=61), until=now - timedelta(days=60)),
        "policy, digest": Query(policy="1" * 16),
        "policy, rare name": Query(policy="strict"),
        "policy, no hit": Query(policy="none of these"),
        "model": Query(model="detox-minilm"),
        "model, not among the newest": Query(model="detox-minilm 1.0"),
        "key": Query(key=row.text_key),
        "review open": Query(review="open"),
        "review accepted": Query(review="accepted"),
        "review corrected": Query(review="corrected"),
        "review rejected": Query(review="rejected"),
        "text, common": Query(text="neighbour"),
        "text, rare": Query(text=RARE_WORD),
        "text, no hit": Query(text="no such words"),
        "text, no hit, in the middle": Query(text="no such words", before=last // 2),
        "text, a whole segment": Query(text=row.before),
        "text, a number": Query(text=f"#{last // 3}"),
        "action and policy, no hit": Query(action="blocked", policy="strict"),
        "all together": Query(
            action="rewritten",
            mode="enforced",
            policy="community",
            label="insult",
            model="detox",
            review="open",
            text="mayor",
            since=now - timedelta(days=30),
        ),
    }


def looks(database: Database) -> Iterator[tuple[str, Callable[[], object]]]:
    """What the audit page asks for, by name."""
    asked = queries(database)
    for name, query in asked.items():
        yield f"page: {name}", partial(page, database, query)
    for name in ("no filter", "action, common", "mode", "until", "text, common", "text, no hit", "label"):
        yield f"days: {name}", partial(days, database, asked[name])


def timed(name: str, case: Callable[[], object], rounds: int = ROUNDS) -> dict[str, Any]:
    """Milliseconds of a call, after one that is not counted."""
    case()
    seconds, began = [], process_time()
    for _ in range(rounds):
        started = perf_counter()
        case()
        seconds.append(perf_counter() - started)
    return {
        "what": name,
        "median, ms": 1e3 * median(seconds),
        "p95, ms": 1e3 * sorted(seconds)[int(0.95 * (rounds - 1))],
        "CPU of this process, ms": 1e3 * (process_time() - began) / rounds,
    }


def writes(database: Database, where: str) -> Iterator[dict[str, Any]]:
    """Single records, decisions and portions of a prune."""
    store, numbers = AuditStore(where, include_text=True), count()
    yield timed("record one", lambda: store.record([intervention(f"one-{next(numbers)}", 0)]), 100)
    yield timed(
        "record 20", lambda: store.record([intervention(f"many-{next(numbers)}", n) for n in range(20)])
    )
    with database.transaction() as connection:
        table = interventions.c
        pruned = min(
            PRUNED * ROWS_AT_ONCE, connection.execute(select(func.count(table.id))).scalar_one() // 10
        )
        chosen = (
            select(table.id).where(table.action == "rewritten").order_by(table.at.desc()).limit(ROUNDS + 1)
        )
        accepted = iter(connection.execute(chosen).scalars().all())
        oldest = select(table.at).order_by(table.at).offset(pruned).limit(1)
        moment = connection.execute(oldest).scalar_one()
    yield timed("decide", lambda: decide(database, next(accepted), "accepted", reviewer="alice"))
    started, began = perf_counter(), process_time()
    removed = prune(database, moment)
    portions = removed / ROWS_AT_ONCE
    each = 1e3 * (perf_counter() - started) / portions
    cpu = 1e3 * (process_time() - began) / portions
    yield {
        "what": f"prune {ROWS_AT_ONCE}",
        "median, ms": each,
        "p95, ms": each,
        "CPU of this process, ms": cpu,
    }
    store.close()


def rates(database: Database, where: str, folder: Path) -> dict[str, float]:
    """Rows a second: of several processes that record one row at a time, and of exports to Parquet."""
    command = [sys.executable, "-m", "benchmarks.audit", "--record", where, "--name"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, f"writer-{number}"], **pipes) for number in range(WRITERS)]
    for writer in writers:
        writer.stdout.readline()
    started = perf_counter()
    for writer in writers:
        writer.stdin.write("\n")
        writer.stdin.close()
    for writer in writers:
        writer.wait()
        writer.stdout.close()
    found = {f"recorded one by one by {WRITERS} processes": WRITERS * RECORDED / (perf_counter() - started)}
    if any(writer.returncode for writer in writers):
        raise RuntimeError("a writer failed")
    for name, export in (("pairs exported", export_pairs), ("records exported", export_records)):
        started = perf_counter()
        rows = export(database, folder / f"{name} {database.is_sqlite}.parquet", kind="parquet")
        found[name] = rows / (perf_counter() - started)
    return found


def measured(where: str, rows: int, folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the table for one database, and what is measured otherwise."""
    database = Database(where)
    name = "sqlite" if database.is_sqlite else "postgresql"
    started = perf_counter()
    fill(database, rows)
    about: dict[str, Any] = {"rows a second": {"loaded in bulk": rows / (perf_counter() - started)}}
    with database.transaction() as connection:
        about["rows"] = connection.execute(select(func.count()).select_from(interventions)).scalar_one()
        version = "sqlite_version()" if database.is_sqlite else "current_setting('server_version')"
        about["version"] = connection.exec_driver_sql(f"SELECT {version}").scalar_one()
    found = [timed(what, case) for what, case in looks(database)]
    found += writes(database, where)
    about["rows a second"] |= rates(database, where, folder)
    database.close()
    return [{"database": name, **row} for row in found], {name: about}


def killed(where: str, kills: int) -> dict[str, Any]:
    """What the campaign of kills found, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.audit_kills", where, "--kills", str(kills)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def record(where: str, name: str) -> int:
    """Records rows one by one, once it is told to begin."""
    store = AuditStore(where, include_text=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(RECORDED):
        store.record([intervention(f"{name}-{number}", 0)])
    return 0


def main() -> int:
    """Prints and writes what was measured; 1 where a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=0, help="how often writers are killed, in each database")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="measures only this one")
    parser.add_argument("--record", metavar="WHERE", help=argparse.SUPPRESS)  # what several writers do
    parser.add_argument("--name", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.record:
        return record(asked.record, asked.name)
    rows: list[dict[str, Any]] = []
    settings: dict[str, Any] = {"rows": asked.rows, "load": os.getloadavg()[0]}
    claims = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = (f"{folder / name}.db" for name in ("rows", "kills"))
        databases = {"sqlite": partial(next, files)}
        if is_installed():
            databases["postgresql"] = stack.enter_context(serving_postgresql())
        if asked.database is not None:
            if asked.database not in databases:
                parser.error("PostgreSQL is not installed")
            databases = {asked.database: databases[asked.database]}
        for name, create in databases.items():
            found, about = measured(create(), asked.rows, folder)
            rows += found
            settings |= about
            for figure in ("median, ms", "p95, ms"):
                slowest = max(row[figure] for row in found if row["what"].startswith(("page", "days")))
                claim = (
                    f"{name}: every page, filter and chart of {asked.rows} rows within {MAX_MS:g} ({figure})"
                )
                claims.append(Claim(claim, slowest, slowest <= MAX_MS))
            if asked.kills:
                about = settings[name]["kills"] = killed(create(), asked.kills)
                wrong = sum(about[kind] for kind in ("lost", "doubled", "torn", "unasked"))
                claim = f"{name}: nothing acknowledged is lost, doubled or torn in {asked.kills} kills"
                claims.append(Claim(claim, wrong, wrong == 0))
    packages = (*PACKAGES, "sqlalchemy", "psycopg", "pyarrow")
    result = "-".join(filter(None, ("audit", str(asked.rows), asked.database)))
    report(result, rows, claims, packages=packages, settings=settings)
    print(json.dumps(settings, indent=1))
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
