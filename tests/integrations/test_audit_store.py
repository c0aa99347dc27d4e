"""What an audit records, when, and what happens where it cannot."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from benchmarks.audit_kills import compared, intervention, places
from guardrail import Action, Guard, Outcome, Policy, Verdict
from guardrail.audit.database import Database
from guardrail.audit.schema import VERSION, schema_version
from guardrail.audit.store import AuditStore
from guardrail.audit.trail import Intervention
from guardrail.engine.plugins import SHIPPED
from guardrail.errors import AuditError, BlockedError, UsageError
from guardrail.events import fingerprint
from guardrail.integrations.audit.records import Query, Record, page
from guardrail.manifest import Manifest, sha256_of
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.test_privacy import shown
from tests.waiting import PATIENCE

CANARY = "canaryword7419"
TOXIC = f"The driver of the {CANARY} bus is an idiot."
MENDED = f"The driver of the {CANARY} bus is an person."
CLEAN = "The meeting starts at nine in the small room."
ROOT = Path(__file__).parents[2]
FAKES = "detector=WordDetector(), lexicon=WordDetector(), rewriter=WordRewriter(), embedder=BagEmbedder()"


def guard(where: Any, **parts: Any) -> Guard:
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(audit=where, **fakes | parts)


def rows(where: str, **query: Any) -> list[Record]:
    """Every record, oldest first."""
    database = Database(where)
    found: list[Record] = []
    before: int | None = None
    try:
        while True:
            one = page(database, Query(limit=200, before=before, **query))
            found += one.records
            if (before := one.next) is None:
                return found[::-1]
    finally:
        database.close()


def test_a_rewrite_is_one_row_with_scores_hashes_and_no_text(where: str) -> None:
    outcome = guard(where).check(f"{CLEAN} {TOXIC} {CLEAN}")
    (edit,) = outcome.edits
    (row,) = rows(where)
    assert (row.kind, row.action) == ("edit", "rewritten")
    assert (row.start, row.end) == (edit.start, edit.end)
    assert row.hmac == fingerprint(TOXIC)
    assert row.scores == {"toxicity": 0.9}
    assert row.scores_after == {"toxicity": 0.01}
    assert row.similarity == pytest.approx(edit.similarity)
    assert row.failed_checks == list(edit.failed_checks) != []
    assert row.policy == Policy().digest()
    assert row.detector == row.lexicon == "tests.fakes.WordDetector"
    assert row.rewriter == "tests.fakes.WordRewriter"
    assert row.before is row.after is row.decision is None
    assert timedelta(0) <= datetime.now(timezone.utc) - row.at < timedelta(minutes=5)


def test_text_is_kept_where_that_was_asked_for(where: str) -> None:
    guard(AuditStore(where, include_text=True)).check(TOXIC)
    (row,) = rows(where)
    assert (row.before, row.after) == (TOXIC, MENDED)
    assert CANARY not in repr(row)


def test_clean_text_leaves_no_trace_and_every_edit_has_its_row(where: str) -> None:
    guarded = guard(where)
    guarded.check(CLEAN)
    guarded.check_many([CLEAN, f"{TOXIC} {CLEAN} You are all utter morons and a damn idiot.", CLEAN])
    first, second = rows(where)
    assert first.text_key == second.text_key
    assert first.start < second.start


@pytest.mark.parametrize(
    ("policy", "action"),
    [(Policy(ladder=("mask", "block")), "masked"), (Policy(ladder=("block",)), "blocked")],
)
def test_what_was_masked_or_blocked_is_recorded_under_its_policy(
    where: str, policy: Policy, action: str
) -> None:
    guard(where, policy=policy).check(TOXIC)
    (row,) = rows(where)
    assert (row.action, row.policy) == (action, policy.digest())


def test_a_block_that_raises_is_recorded_first(where: str) -> None:
    with pytest.raises(BlockedError):
        guard(where, policy=Policy(ladder=("block",), block="raise")).check(TOXIC)
    assert [row.action for row in rows(where)] == ["blocked"]


def test_a_degraded_text_is_an_intervention_too(where: str) -> None:
    def broken(texts: object) -> list[Verdict]:
        raise ValueError

    store = AuditStore(where, include_text=True)
    guard(store, detector=broken, policy=Policy(on_error="open")).check(CLEAN)
    (row,) = rows(where)
    assert (row.kind, row.action, row.degraded) == ("degraded", "passed", ["detector_error"])
    assert (row.start, row.end) == (0, len(CLEAN))
    assert (row.before, row.after) == (None, CLEAN)


def test_shipped_models_are_named_with_the_sha256_of_their_manifests(where: str) -> None:
    Guard(audit=where, rewriter=None).check("You are an idiot.")
    row = rows(where)[0]
    manifest = Manifest.load(SHIPPED / "detector", verify=False)
    assert (
        row.detector
        == f"detox-minilm {manifest.version} sha256:{sha256_of(SHIPPED / 'detector' / 'manifest.json')}"
    )
    assert row.lexicon == f"lexicon.txt sha256:{manifest.files['lexicon.txt']}"
    assert row.rewriter == "none"
    rewriter = Manifest.load(SHIPPED / "rewriter", verify=False)
    assert rewriter.digest() == sha256_of(SHIPPED / "rewriter" / "manifest.json")


def test_the_row_is_committed_before_the_hook_and_the_caller_hear_of_it(where: str) -> None:
    seen: list[int] = []

    def hook(outcome: Outcome) -> None:
        seen.append(len(rows(where)))

    guarded = guard(where, on_outcome=hook)
    guarded.check(TOXIC)
    asyncio.run(guarded.acheck(TOXIC))
    guarded.check_many([TOXIC, TOXIC])
    assert seen == [1, 2, 4, 4]


def test_guards_made_from_a_guard_write_into_its_audit(where: str) -> None:
    guard(where).with_policy(Policy(ladder=("block",))).check(TOXIC)
    assert [row.action for row in rows(where)] == ["blocked"]


def test_a_key_that_is_there_is_not_recorded_again(where: str) -> None:
    guarded = guard(where)
    guarded.check_many([TOXIC, CLEAN], keys=["job-1", "job-2"])
    guarded.check_many([TOXIC, TOXIC], keys=["job-1", "job-3"])
    assert [row.text_key for row in rows(where)] == ["job-1", "job-3"]


def test_many_threads_and_tasks_lose_nothing(where: str) -> None:
    guarded = guard(where)
    threads = [threading.Thread(target=guarded.check, args=(TOXIC,)) for _ in range(16)]
    for thread in threads:
        thread.start()

    async def together() -> None:
        await asyncio.gather(*(guarded.acheck(TOXIC) for _ in range(16)))

    asyncio.run(together())
    for thread in threads:
        thread.join()
    assert len({row.text_key for row in rows(where)}) == 32


def test_the_event_loop_goes_on_while_a_row_is_written() -> None:
    loop_went_on = threading.Event()

    class Slow:
        def record(self, interventions: object, /) -> None:
            assert loop_went_on.wait(PATIENCE)

    async def scenario() -> Outcome:
        checking = asyncio.ensure_future(guard(Slow()).acheck(TOXIC))
        asyncio.get_running_loop().call_later(0.02, loop_went_on.set)
        return await checking

    assert asyncio.run(scenario()).action is Action.REWRITTEN


# ---- streams

STREAMED = [
    f"{CLEAN} The dri",
    f"ver of the {CANARY} bus is an idiot. ",
    CLEAN,
    " You are all utter morons and a damn moron.",
]


def test_an_edit_of_a_stream_is_recorded_before_its_text_is_handed_out(where: str) -> None:
    stream = guard(where).stream(STREAMED)
    counts = [len(rows(where)) if "person" in piece else 0 for piece in stream]
    assert [count for count in counts if count] == [1, 2]
    assert stream.outcome is not None
    found = rows(where)
    assert [(row.start, row.end) for row in found] == [(e.start, e.end) for e in stream.outcome.edits]
    assert len({row.text_key for row in found}) == 1


def test_a_stream_leaves_the_rows_that_the_whole_text_leaves(where: str) -> None:
    guarded = guard(where)
    list(guarded.stream(STREAMED))

    async def read() -> None:
        _ = [piece async for piece in guarded.astream(STREAMED)]

    asyncio.run(read())
    guarded.check("".join(STREAMED))
    found = [(row.start, row.end, row.hmac, row.action, row.failed_checks) for row in rows(where)]
    assert len(found) == 6
    assert found[:2] == found[2:4] == found[4:]


def test_a_stream_that_ends_early_is_recorded_as_unfinished(where: str) -> None:
    with guard(where).stream(STREAMED) as stream:
        next(stream)
    assert [(row.kind, row.degraded) for row in rows(where)] == [("degraded", ["unfinished"])]


@pytest.mark.parametrize("is_async", [False, True])
def test_where_an_edit_cannot_be_recorded_its_text_does_not_leave_the_stream(
    tmp_path: Path, is_async: bool
) -> None:
    guarded = guard(broken_store(tmp_path))
    shown_pieces: list[str] = []

    async def read() -> None:
        async for piece in guarded.astream(STREAMED):
            shown_pieces.append(piece)

    def read_plainly() -> None:
        shown_pieces.extend(guarded.stream(STREAMED))

    with pytest.raises(AuditError):
        asyncio.run(read()) if is_async else read_plainly()
    assert "".join(shown_pieces).strip() == CLEAN, "what stood before it"


@pytest.mark.parametrize("is_async", [False, True])
def test_every_string_of_a_structure_that_was_changed_has_its_row(where: str, is_async: bool) -> None:
    value = [TOXIC, CLEAN, "What a moron that man is."]
    guarded = guard(where)
    after = asyncio.run(guarded.amoderate(value)) if is_async else guarded.moderate(value)
    assert after != value
    assert len({row.text_key for row in rows(where)}) == 2


# ---- kill -9

WORKER = f"""
import os, signal, sys
from guardrail import Guard
from guardrail.audit.store import AuditStore
from tests.fakes import BagEmbedder, WordDetector, WordRewriter

def die(outcome):
    if os.environ.get("DIE_BEFORE_REPLY") and len(told) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

told = []
guard = Guard({FAKES}, audit=AuditStore(sys.argv[1], include_text=True), on_outcome=die)
for number in range(100_000):
    guard.check(f"Person number {{number}} is an idiot, says everybody here.")
    told.append(number)
    print(number, flush=True)
"""


def start_worker(where: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, where],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environ | {"PYTHONPATH": str(ROOT)},
    )


def numbers(where: str) -> list[int]:
    return [int(str(row.before).split()[2]) for row in rows(where)]


def test_a_process_killed_before_it_replies_has_recorded_what_it_did(where: str) -> None:
    worker = start_worker(where, DIE_BEFORE_REPLY="yes")
    told, _ = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == -signal.SIGKILL
    assert told.split() == ["0", "1", "2"]
    assert numbers(where) == [0, 1, 2, 3], "the fourth was committed, and never shown"


def test_whatever_a_killed_process_has_told_is_in_the_audit(where: str) -> None:
    worker = start_worker(where)
    assert worker.stdout is not None
    told = [int(worker.stdout.readline()) for _ in range(25)]
    worker.kill()
    told += [int(line) for line in worker.stdout.read().splitlines()]
    worker.stdout.close()
    worker.wait()
    recorded = numbers(where)
    assert recorded[: len(told)] == told
    assert len(recorded) <= len(told) + 1


def test_writers_killed_at_random_points_leave_every_acknowledged_row_once(where: str) -> None:
    found = killed(where, kills=6)
    assert found["acknowledged"] > 0
    assert found["lost"] == found["doubled"] == found["torn"] == found["unasked"] == 0


def killed(where: str, *, kills: int) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.audit_kills", where, "--kills", str(kills)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_the_oracle_of_the_kills_sees_what_is_lost_torn_or_not_asked_for(tmp_path: Path) -> None:
    store = AuditStore(tmp_path / "audit.db", include_text=True)
    for number in range(5):
        store.record([intervention(*place) for place in places("first", number)])
    told = {"first": 4}

    def seen() -> tuple[int, int, int]:
        found = compared(store.database, told, kills=1, crashes=0, between=0)
        return found.lost, found.torn, found.unasked

    assert seen() == (0, 0, 0), "the fifth call was committed and not acknowledged"
    changed(store, "DELETE FROM {} WHERE text_key = 'first-4' AND start = 0")
    assert seen() == (0, 1, 0)
    changed(store, "DELETE FROM {} WHERE text_key = 'first-1'")
    assert seen() == (2, 1, 0)
    changed(store, "UPDATE {} SET before = 'x' WHERE text_key = 'first-0'")
    store.record([intervention("first-7", 0)])
    assert seen() == (2, 1, 2)
    store.close()


def changed(store: AuditStore, statement: str) -> None:
    with store.database.transaction(write=True) as connection:
        connection.exec_driver_sql(statement.format("guardrail_interventions"))


def test_two_processes_write_one_database_while_a_third_reads(where: str) -> None:
    script = """
import sys
from benchmarks.audit_kills import intervention
from guardrail.audit.store import AuditStore
store = AuditStore(sys.argv[1], include_text=True)
for number in range(100):
    store.record([intervention(f"{sys.argv[2]}-{number}", start) for start in range(2)])
"""
    command = [sys.executable, "-c", script, where]
    writers = [subprocess.Popen([*command, name], cwd=ROOT) for name in ("first", "second")]
    database = Database(where)
    totals = []
    while any(writer.poll() is None for writer in writers):
        totals.append(page(database, Query(limit=1)).total)
    database.close()
    assert [writer.returncode for writer in writers] == [0, 0]
    assert totals == sorted(totals)
    assert all(total % 2 == 0 for total in totals), "a call is there as a whole or not at all"
    found = [(row.text_key, row.start) for row in rows(where)]
    assert len(found) == len(set(found)) == 400
    for name in ("first", "second"):
        order = [int(key.partition("-")[2]) for key, _ in found if key.startswith(name)]
        assert order == sorted(order)


# ---- failure


def broken_store(tmp_path: Path, **options: Any) -> AuditStore:
    """A store whose table has gone since it was opened."""
    store = AuditStore(tmp_path / "audit.db", include_text=True, **options)
    with sqlite3.connect(tmp_path / "audit.db") as connection:
        connection.execute("DROP TABLE guardrail_interventions")
    connection.close()
    return store


@pytest.mark.parametrize(
    "call",
    [
        lambda g: g.check(TOXIC),
        lambda g: g.check_many([TOXIC]),
        lambda g: asyncio.run(g.acheck(TOXIC)),
    ],
)
def test_where_nothing_can_be_recorded_no_text_is_returned(
    tmp_path: Path, call: Callable[[Guard], object]
) -> None:
    heard: list[Outcome] = []
    guarded = guard(broken_store(tmp_path), on_outcome=heard.append)
    with pytest.raises(AuditError, match="no such table") as caught:
        call(guarded)
    assert heard == []
    assert CANARY not in shown(caught.value)
    assert guarded.check(CLEAN).text == CLEAN, "nothing is to be recorded of it"


def test_an_audit_that_may_fail_open_logs_what_it_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert guard(broken_store(tmp_path, on_error="open")).check(TOXIC).text == MENDED
    assert "1 interventions were not recorded" in caplog.text
    assert CANARY not in caplog.text


def test_a_database_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="cannot open the audit"):
        AuditStore(tmp_path / "nowhere" / "audit.db")
    (tmp_path / "audit.db").write_bytes(b"this is no database at all" * 100)
    with pytest.raises(AuditError, match="does not work"):
        AuditStore(tmp_path / "audit.db")
    with pytest.raises(AuditError) as caught:
        AuditStore(f"postgresql://officer:s3cret@/audit?host={tmp_path}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://db/audit", "SQLite or PostgreSQL, not into 'mysql'"),
        ("sqlite://", "in memory would be lost"),
        ("sqlite:///:memory:", "in memory would be lost"),
        ("postgresql://db:port/audit", "cannot be read"),
    ],
)
def test_only_databases_that_keep_an_audit_are_taken(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AuditStore(url)


@pytest.mark.parametrize(
    ("missing", "url", "extra"),
    [("sqlalchemy", "audit.db", "audit"), ("psycopg", "postgresql://officer@db/audit", "postgresql")],
)
def test_a_missing_extra_is_named(tmp_path: Path, missing: str, url: str, extra: str) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
from guardrail import Guard
from guardrail.errors import MissingExtraError
try:
    Guard(audit={url!r})
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert f"pip install 'detox-guardrail[{extra}]'" in done.stdout


@pytest.mark.parametrize(("version", "age"), [(VERSION + 1, "a newer"), (0, "an older")])
def test_another_versions_tables_are_refused(where: str, version: int, age: str) -> None:
    AuditStore(where).close()
    database = Database(where)
    with database.transaction(write=True) as connection:
        connection.execute(schema_version.update().values(version=version))
    database.close()
    with pytest.raises(AuditError, match=f"has schema {version}, {age} one"):
        AuditStore(where)


def test_processes_that_start_together_make_the_tables_once(where: str) -> None:
    script = "import sys; from guardrail.audit.store import AuditStore; AuditStore(sys.argv[1])"
    started = [subprocess.Popen([sys.executable, "-c", script, where]) for _ in range(4)]
    assert [process.wait(timeout=PATIENCE) for process in started] == [0, 0, 0, 0]
    assert rows(where) == []


def test_the_sqlite_file_is_its_owners_alone_and_commits_last(tmp_path: Path) -> None:
    store = AuditStore(tmp_path / "audit.db")
    assert stat.S_IMODE((tmp_path / "audit.db").stat().st_mode) == 0o600
    with store.database.transaction() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2, "FULL"
    store.close()


def test_text_that_no_database_takes_is_kept_as_far_as_it_can_be(where: str) -> None:
    store = AuditStore(where, include_text=True)
    odd = "The idiot said \ud83d and \0 and \U0001f600 today."
    guard(store).check(odd)
    (row,) = rows(where)
    assert row.before == "The idiot said \ufffd and \ufffd and \U0001f600 today."
    assert row.hmac == fingerprint(odd)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_connections_of_its_own(where: str) -> None:
    guarded = guard(where)
    guarded.check(TOXIC)
    script = f"""
import os, sys
from guardrail import Guard
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from guardrail import Policy
guard = Guard({FAKES}, audit=sys.argv[1], policy=Policy(detect_timeout=None, rewrite_timeout=None))
guard.check("He is an idiot, says everybody here.")
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(5):
            guard.check("He is an idiot, says everybody here.")
        os._exit(0)
    children.append(child)
for _ in range(5):
    guard.check("He is an idiot, says everybody here.")
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
"""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script, where], env=environ, check=True, timeout=PATIENCE)
    assert len(rows(where)) == 1 + 1 + 4 * 5


def test_any_object_that_records_will_do() -> None:
    class Listing:
        def __init__(self) -> None:
            self.found: list[Intervention] = []

        def record(self, interventions: Any, /) -> None:
            self.found += interventions

    listing = Listing()
    guard(listing).check(TOXIC)
    (one,) = listing.found
    assert (one.before, one.after, one.action) == (TOXIC, MENDED, Action.REWRITTEN)
    assert CANARY not in repr(one)
    assert json.dumps(one.origin.policy)
