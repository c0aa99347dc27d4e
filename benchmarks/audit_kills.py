"""Kills the writers of an audit at random points, and looks afterwards: each acknowledged row is there, once.

Run: ``python -m benchmarks.audit_kills WHERE --kills 200``. Two writers record at the same time and tell
the parent of each call that has returned. It kills both (SIGKILL) after a random number of calls and a random
while, also while they open the database. Their successors begin with the first call that nobody told of.
Every 20th time a process of PostgreSQL's server is killed instead, and it recovers as from a crash.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import select as polling
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from sqlalchemy import select
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from guardrail.audit.database import Database
from guardrail.audit.schema import interventions
from guardrail.audit.store import AuditStore
from guardrail.audit.trail import Intervention, Origin
from guardrail.errors import AuditError
from guardrail.outcome import Action, Verdict

__all__ = ["Found", "campaign", "compared", "intervention", "places"]

WRITERS = ("first", "second")
CRASH_EVERY = 20
PATIENCE = 120.0
REFUSED, BROKEN = 3, 4
_TABLE = interventions.c
ORIGIN = Origin(policy="0" * 16, detector="detector 1.0", lexicon="lexicon.txt", rewriter="rewriter 1.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the oracle has found; ``lost``, ``doubled``, ``torn`` and ``unasked`` must be 0.

    ``acknowledged`` counts rows; ``between`` are kills between a commit and its acknowledgement, of those
    after which that is looked for. ``torn`` are calls of which a part is there, ``unasked`` rows of nobody.
    """

    kills: int
    crashes: int
    acknowledged: int
    between: int
    lost: int
    doubled: int
    torn: int
    unasked: int

    @property
    def is_right(self) -> bool:
        return self.lost == self.doubled == self.torn == self.unasked == 0


def intervention(key: str, start: int) -> Intervention:
    """A record as a guard makes it, with a text that its key and place determine."""
    return Intervention(
        key=key,
        at=datetime.now(timezone.utc),
        action=Action.REWRITTEN,
        verdict=Verdict({"toxicity": 0.9}, flagged=True),
        verdict_after=Verdict({"toxicity": 0.01}, flagged=False),
        start=start,
        end=start + 1,
        before=f"Person {key} number {start} is an idiot.",
        after=f"Person {key} number {start} is wrong.",
        origin=ORIGIN,
    )


def places(writer: str, number: int) -> list[tuple[str, int]]:
    """Key and start of each row that the call of this number records."""
    return [(f"{writer}-{number}", start) for start in range(1 + number % 3)]


def write(where: str, writer: str, first: int, pipe: int) -> None:
    """Records without end, from this number on, and acknowledges each call."""
    store = AuditStore(where, include_text=True)
    number = first
    while True:
        store.record([intervention(*place) for place in places(writer, number)])
        os.write(pipe, f"{writer} {number}\n".encode())
        number += 1


def campaign(where: str, *, kills: int, seed: int) -> Found:
    """Kills the writers so many times, and tells what is in the audit. It forks: call it without threads."""
    dice = random.Random(seed)
    acknowledged = dict.fromkeys(WRITERS, 0)
    database = Database(where)
    crashes = between = 0
    for kill in range(1, kills + 1):
        is_crash = not database.is_sqlite and kill % CRASH_EVERY == 0
        crashes += is_crash
        _round(database if is_crash else None, where, acknowledged, dice)
        if dice.random() < 0.5:  # otherwise the next writers are the first to open what was left behind
            between += _holds_more(database, acknowledged)
    found = compared(database, acknowledged, kills=kills, crashes=crashes, between=between)
    database.close()
    return found


def _round(crashing: Database | None, where: str, acknowledged: dict[str, int], dice: random.Random) -> None:
    reading, writing = os.pipe()
    children = [_forked(where, writer, acknowledged[writer], writing) for writer in WRITERS]
    os.close(writing)
    told = b""
    calls = dice.randint(1, 15) if crashing else dice.choice((0, dice.randint(1, 15)))
    while told.count(b"\n") < calls:
        if not polling.select([reading], [], [], PATIENCE)[0]:
            raise RuntimeError("the writers have stopped to write")
        if not (more := os.read(reading, 1 << 16)):
            raise RuntimeError("the writers have ended of themselves")
        told += more
    time.sleep(dice.uniform(0, 0.01 if calls else 0.1))
    if crashing:
        _crash(crashing)
    else:
        for child in children:
            os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 1 << 16):
        told += more
    os.close(reading)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if set(ends) != ({REFUSED} if crashing else {-signal.SIGKILL}):
        raise RuntimeError(f"the writers ended with {ends}")
    for line in told.decode().splitlines():
        writer, number = line.split()
        if int(number) != acknowledged[writer]:
            raise RuntimeError(f"{writer} acknowledged {number} after {acknowledged[writer] - 1}")
        acknowledged[writer] += 1


def _forked(where: str, writer: str, first: int, pipe: int) -> int:
    if child := os.fork():
        return child
    status = BROKEN
    try:
        write(where, writer, first, pipe)
    except AuditError:
        status = REFUSED
    finally:  # the child must not go on with what its parent does
        os._exit(status)


def _crash(database: Database) -> None:
    """Kills a process of the server, which then ends all others and recovers; returns once it is back."""
    with database.transaction() as connection:
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        process = connection.exec_driver_sql(f"SELECT pid {others}").scalars().first()
    database.close()
    os.kill(process, signal.SIGKILL)
    for attempt in Retrying(
        retry=retry_if_exception_type(AuditError), stop=stop_after_delay(PATIENCE), wait=wait_fixed(0.05)
    ):
        with attempt, database.transaction() as connection:
            connection.exec_driver_sql("SELECT 1")


def _holds_more(database: Database, acknowledged: Mapping[str, int]) -> bool:
    keys = [f"{writer}-{number}" for writer, number in acknowledged.items()]
    with database.transaction() as connection:
        found = connection.execute(select(_TABLE.id).where(_TABLE.text_key.in_(keys))).first()
    database.close()
    return found is not None


def compared(
    database: Database, acknowledged: Mapping[str, int], *, kills: int, crashes: int, between: int
) -> Found:
    """What is in the audit, if each writer was told to have done so many calls."""
    with database.transaction() as connection:
        rows = connection.execute(select(_TABLE.text_key, _TABLE.start, _TABLE.before)).all()
        if database.is_sqlite and connection.exec_driver_sql("PRAGMA integrity_check").scalar() != "ok":
            raise RuntimeError("the database is damaged")
    there = {(row.text_key, row.start): row.before for row in rows}
    wanted = {
        place for writer, number in acknowledged.items() for n in range(number) for place in places(writer, n)
    }
    last_calls = [places(writer, number) for writer, number in acknowledged.items()]
    allowed = wanted.union(*last_calls)
    return Found(
        kills=kills,
        crashes=crashes,
        acknowledged=len(wanted),
        between=between,
        lost=len(wanted - there.keys()),
        doubled=len(rows) - len(there),
        torn=sum(len({place in there for place in call}) > 1 for call in last_calls),
        unasked=sum(
            place not in allowed or text != intervention(*place).before for place, text in there.items()
        ),
    )


def main() -> int:
    """Prints what was found as one JSON object; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("where", help="a new SQLite file, or the URL of an empty PostgreSQL database")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="a run's number; random if omitted")
    asked = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if asked.seed is None else asked.seed
    found = campaign(asked.where, kills=asked.kills, seed=seed)
    print(json.dumps({"seed": seed} | asdict(found)))
    return 0 if found.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
