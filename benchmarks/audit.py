"""How quick an audit of 10^5 or 10^6 rows is: pages, every filter, days, inserts, prune and export.

Run: ``python -m benchmarks.audit --rows 1000000 --kills 200``. In SQLite, and in PostgreSQL if that is installed. The
rows are made up and loaded in bulk; what is timed goes through the code that a server runs. ``--kills`` plays
``benchmarks.audit_kills`` on each database first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from time import perf_counter

from benchmarks.audit_kills import campaign, intervention
from benchmarks.audit_rows import RARE_WORD, fill
from benchmarks.measure import PACKAGES, Claim, report
from guardrail.audit.database import Database
from guardrail.audit.store import AuditStore
from guardrail.integrations.audit.records import Query, days, page
from guardrail.integrations.audit.retention import prune
from guardrail.integrations.audit.review import decide
from guardrail.integrations.audit.pairs_file import write_pairs
from tests.integrations.postgresql import is_installed, serving_postgresql

ROUNDS = 20
MAX_MS = 200.0
OTHER_SPEEDS = ("record", "prune 1,000 rows", "export")


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


def cases(database: Database) -> Iterator[tuple[str, Callable[[], object]]]:
    """What is timed, by name."""
    for name, query in queries(database).items():
        yield f"page: {name}", lambda query=query: page(database, query)
    for name in ("no filter", "action, common", "mode", "until", "text, common", "text, no hit", "label"):
        yield f"days: {name}", lambda query=queries(database)[name]: days(database, query)


def timed(case: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """Milliseconds of each call, after one that is not counted."""
    case()
    found = []
    for _ in range(rounds):
        began = perf_counter()
        case()
        found.append(1e3 * (perf_counter() - began))
    return sorted(found)
