"""What people see of an audit and decide on it, and the training pairs that come of that."""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from guardrail import Guard, Policy
from guardrail.audit.schema import interventions
from guardrail.audit.store import AuditStore
from guardrail.errors import AuditError, ConfigError, UsageError
from guardrail.integrations.audit import export, records
from guardrail.integrations.audit.records import Query, Record, days, page, record_of
from guardrail.integrations.audit.review import (
    Pair,
    RefusedCorrectionError,
    accept_all,
    corrections,
    decide,
    pairs,
)
from guardrail.integrations.audit.routes import audit_routes
from guardrail.integrations.cli import app
from guardrail.integrations.openai_server import Keys, create_app
from guardrail.integrations.web.auth import Reviewers
from guardrail_training.data import drop_copies, read_rows
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.integrations.server.running import get, serving
from tests.waiting import PATIENCE

XSS = "<img src=x onerror=alert(1)> You are an idiot."
MASKING = Policy(ladder=("mask", "block"))
KEY = "alices-key-0123456789"
ALICE = {"authorization": f"Bearer {KEY}"}


def guard(store: AuditStore, **parts: Any) -> Guard:
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(audit=store, **fakes | parts)


@pytest.fixture
def store(where: str) -> Iterator[AuditStore]:
    """An audit with three rewrites, a mask and a degraded text, numbered from 1."""
    opened = AuditStore(where, include_text=True)
    rewriting = guard(opened)
    for text in ("You are an idiot.", "What a moron he is.", XSS):
        rewriting.check(text)
    guard(opened, policy=MASKING).check("Shut up, you idiot.")
    guard(opened, detector=lambda texts: [], policy=Policy(on_error="open")).check("A fine day.")
    yield opened
    opened.close()


def correct(
    store: AuditStore, number: int, correction: str, *, reviewer: str = "alice", confirmed: Any = ()
) -> Record:
    return decide(
        store.database,
        number,
        "corrected",
        reviewer=reviewer,
        guard=guard(store),
        correction=correction,
        confirmed=confirmed,
    )


def numbers(store: AuditStore, **query: Any) -> list[int]:
    return [record.id for record in page(store.database, Query(**query)).records]


def test_pages_follow_each_other_without_gap_or_overlap(store: AuditStore) -> None:
    found: list[int] = []
    before: int | None = None
    while True:
        one = page(store.database, Query(limit=2, before=before))
        found += [record.id for record in one.records]
        if (before := one.next) is None:
            break
    assert found == [5, 4, 3, 2, 1]


def test_filters_hold_together(store: AuditStore) -> None:
    now = datetime.now(timezone.utc)
    assert numbers(store, action="rewritten") == [3, 2, 1]
    assert numbers(store, action="passed") == [5]
    assert numbers(store, label="toxicity") == [4, 3, 2, 1]
    assert numbers(store, label="toxicity", least=0.95) == []
    assert numbers(store, label="threat") == []
    assert numbers(store, policy=MASKING.digest()) == [4]
    assert numbers(store, model="WordRewriter", action="masked") == [4]
    assert numbers(store, model="Word_ewriter") == [], "taken literally"
    assert numbers(store, since=now - timedelta(minutes=5), until=now + timedelta(minutes=5)) == [
        5,
        4,
        3,
        2,
        1,
    ]
    assert numbers(store, until=now - timedelta(minutes=5)) == []
    record = page(store.database, Query(limit=1)).records[0]
    assert numbers(store, key=record.text_key) == [5]


def test_the_last_decision_counts_and_all_are_kept(store: AuditStore) -> None:
    decide(store.database, 1, "accepted", reviewer="alice")
    record = correct(store, 1, " You are mistaken. ", reviewer="bob")
    assert (record.decision, record.reviewer, record.correction) == ("corrected", "bob", "You are mistaken.")
    assert record.reviewed_at is not None
    assert numbers(store, review="corrected") == [1]
    assert numbers(store, review="open") == [5, 4, 3, 2]
    record = decide(store.database, 1, "accepted", reviewer="carol")
    assert (record.decision, record.correction) == ("accepted", None)
    with store.database.transaction() as connection:
        kept = connection.exec_driver_sql("SELECT count(*) FROM guardrail_reviews").scalar()
    assert kept == 3


@pytest.mark.parametrize(
    ("number", "decision", "correction", "message"),
    [
        (99, "accepted", None, "no intervention 99"),
        (4, "accepted", None, "it was masked, not rewritten"),
        (5, "corrected", "x", "its text is not kept"),
        (1, "corrected", None, "the correction is empty"),
        (1, "corrected", "  ", "the correction is empty"),
        (1, "corrected", "You are an idiot. ", "the correction is the original"),
        (1, "corrected", "x" * 10_001, "longer than 10000 characters"),
    ],
)
def test_a_decision_that_teaches_nothing_is_refused(
    store: AuditStore, number: int, decision: Any, correction: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        decide(store.database, number, decision, reviewer="alice", guard=guard(store), correction=correction)


def test_where_no_text_is_kept_there_is_nothing_to_decide(where: str) -> None:
    store = AuditStore(where)
    guard(store).check("You are an idiot.")
    with pytest.raises(UsageError, match="its text is not kept"):
        decide(store.database, 1, "accepted", reviewer="alice")
    store.close()


def test_a_search_finds_parts_of_texts_and_numbers(store: AuditStore) -> None:
    correct(store, 4, "Please be QUIET.", confirmed=["meaning", "name"])
    assert numbers(store, text="moron") == [2]
    assert numbers(store, text="MORON") == [2], "in capitals or not"
    assert numbers(store, text="quiet") == [4], "in a correction"
    assert numbers(store, text="person") == [3, 2, 1], "in what was shown"
    assert numbers(store, text="%") == [], "taken literally"
    assert numbers(store, text="_moron") == []
    assert numbers(store, text="#2") == numbers(store, text=" #2 ") == [2]
    assert numbers(store, text="#99") == []
    assert numbers(store, text="idiot", action="masked") == [4]
    assert "moron" not in repr(Query(text="moron"))


def test_a_whole_segment_is_found_even_where_no_text_is_kept(where: str) -> None:
    store = AuditStore(where)
    guard(store).check_many(["You are an idiot.", "What a moron he is."])
    assert numbers(store, text="What a moron he is.") == [2]
    assert numbers(store, text="moron") == []
    store.close()


def test_a_page_says_how_many_records_fit_on_all_pages(store: AuditStore) -> None:
    assert page(store.database, Query(limit=2)).total == 5
    assert page(store.database, Query(limit=2, before=3)).total == 5
    assert page(store.database, Query(action="rewritten", limit=1)).total == 3
    assert page(store.database, Query(text="no such words")).total == 0
    decide(store.database, 1, "accepted", reviewer="alice")
    decide(store.database, 1, "accepted", reviewer="bob")
    assert page(store.database, Query()).total == 5, "two decisions on one record are one record"
    assert page(store.database, Query(review="open")).total == 4


def test_days_are_counted_by_action_with_those_on_which_nothing_happened(store: AuditStore) -> None:
    now = datetime.now(timezone.utc)
    last_week = now - timedelta(days=7)
    with store.database.transaction(write=True) as connection:
        moved = interventions.update().where(interventions.c.id.in_([1, 4])).values(at=last_week)
        connection.execute(moved)
    found = days(store.database, Query())
    assert len(found) == 30
    assert [one.day for one in found] == sorted(one.day for one in found)
    counted = {one.day: one.counts for one in found if one.counts}
    assert counted[last_week.date()] == {"rewritten": 1, "masked": 1}
    assert sum(sum(counts.values()) for counts in counted.values()) == 5
    (only,) = [one for one in days(store.database, Query(action="masked")) if one.counts]
    assert (only.day, only.counts) == (last_week.date(), {"masked": 1})
    until = datetime.combine(last_week.date(), datetime.min.time(), timezone.utc) + timedelta(days=1)
    before = days(store.database, Query(since=until - timedelta(days=3), until=until))
    assert [sum(one.counts.values()) for one in before] == [0, 0, 2]


def test_several_rewrites_are_accepted_at_once_and_the_others_are_named(store: AuditStore) -> None:
    decide(store.database, 2, "accepted", reviewer="bob")
    done = accept_all(store.database, [1, 2, 3, 4, 5, 99], reviewer="alice")
    assert [(record.id, record.reviewer) for record in done.records] == [
        (3, "alice"),
        (2, "bob"),
        (1, "alice"),
    ]
    assert done.refused == {
        4: "it was masked, not rewritten",
        5: "its text is not kept (include_text)",
        99: "the audit has no such intervention",
    }
    assert numbers(store, review="accepted") == [3, 2, 1]
    for count in (0, 201):
        with pytest.raises(UsageError, match="between 1 and 200"):
            accept_all(store.database, [1] * count, reviewer="alice")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 201}, {"action": "rewriten"}])
def test_a_query_that_cannot_be_meant_is_refused(query: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Query(**query)


# ---- export


def test_the_export_is_what_the_trainer_reads(store: AuditStore, where: str, tmp_path: Path) -> None:
    odd = "You idiot\u2028said \u0085 it: \U0001f600"
    rewriting = guard(store)
    for text in ("You are an idiot.", odd):
        rewriting.check(text)
    decide(store.database, 1, "accepted", reviewer="alice")
    correct(store, 6, "You are mistaken.", reviewer="alice")
    correct(store, 4, "Please be quiet.", reviewer="bob", confirmed=["meaning"])
    decide(store.database, 7, "accepted", reviewer="bob")
    decide(store.database, 2, "accepted", reviewer="bob")
    correct(store, 2, "He is wrong.", reviewer="bob")
    target = tmp_path / "pairs.jsonl"
    result = CliRunner().invoke(app, ["audit", "export", str(target), "--audit", where])
    assert result.exit_code == 0, result.output
    assert result.stderr == "4 pairs\ncorrections confirmed although checks refuse them: 1\n"
    found = {row.source: set(row.references) for row in drop_copies(read_rows(target))}
    assert found == {
        "You are an idiot.": {"You are an person.", "You are mistaken."},
        "Shut up, you idiot.": {"Please be quiet."},
        "What a moron he is.": {"He is wrong."},
        odd: {odd.replace("idiot", "person")},
    }
    again = CliRunner().invoke(app, ["audit", "export", str(target), "--audit", where])
    assert again.exit_code == 2
    assert "cannot write" in again.stderr


def test_a_parquet_export_holds_what_the_other_one_does(
    store: AuditStore, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROWS_AT_ONCE", 1)
    decide(store.database, 1, "accepted", reviewer="alice")
    correct(store, 1, "You are mistaken.")
    decide(store.database, 2, "accepted", reviewer="bob")
    for name in ("pairs.jsonl", "pairs.parquet"):
        done = CliRunner().invoke(app, ["audit", "export", str(tmp_path / name), "--audit", where])
        assert (done.exit_code, done.stderr) == (0, "2 pairs\n")
    table = pq.ParquetFile(tmp_path / "pairs.parquet")
    lines = (tmp_path / "pairs.jsonl").read_text().splitlines()
    assert table.read().to_pylist() == [json.loads(line) for line in lines]
    assert table.num_row_groups == 2, "one pair is in memory at a time here"


def test_an_export_of_records_has_every_one_with_its_last_decision(
    store: AuditStore, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ROWS_AT_ONCE", 2)
    decide(store.database, 1, "accepted", reviewer="alice")
    correct(store, 1, "You are a moron.", confirmed=["toxic", "lexicon"])
    for name in ("records.jsonl", "records.parquet"):
        done = CliRunner().invoke(
            app, ["audit", "export", "--records", str(tmp_path / name), "--audit", where]
        )
        assert (done.exit_code, done.stderr) == (0, "5 records\n")
    wanted = [asdict(record_of(store.database, number)) for number in range(1, 6)]
    table = pq.read_table(tmp_path / "records.parquet").to_pylist()
    assert [_with_dicts(row) for row in table] == wanted
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    found = list(map(json.loads, lines))
    for row in found:
        row |= {name: row[name] and datetime.fromisoformat(row[name]) for name in ("at", "reviewed_at")}
    assert found == wanted
    assert (wanted[0]["decision"], wanted[0]["confirmed"]) == ("corrected", ["toxic", "lexicon"])


def _with_dicts(row: dict[str, Any]) -> dict[str, Any]:
    names = [name for name in ("scores", "scores_after") if row[name] is not None]
    return row | {name: dict(row[name]) for name in names}


def test_an_empty_export_is_a_file_that_can_be_read(where: str, tmp_path: Path) -> None:
    AuditStore(where).close()
    for option in ([], ["--records"]):
        target = tmp_path / f"{len(option)}.parquet"
        done = CliRunner().invoke(app, ["audit", "export", *option, str(target), "--audit", where])
        assert done.exit_code == 0
        assert pq.read_table(target).num_rows == 0


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [(["x.pq"], "parquet"), (["x", "--format", "parquet"], "parquet"), (["x.txt"], "jsonl")],
)
def test_an_export_has_the_format_that_is_asked_for_or_named(
    store: AuditStore, where: str, tmp_path: Path, arguments: list[str], kind: str
) -> None:
    target = tmp_path / arguments[0]
    done = CliRunner().invoke(app, ["audit", "export", str(target), *arguments[1:], "--audit", where])
    assert done.exit_code == 0
    assert target.read_bytes().startswith(b"PAR1") == (kind == "parquet")


@pytest.mark.parametrize("name", ["x.csv", "x.arrow", "x.jsonl.gz", "x.parquet.zst"])
def test_an_export_in_another_format_is_refused_and_makes_nothing(
    store: AuditStore, where: str, tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    done = CliRunner().invoke(app, ["audit", "export", str(folder / name), "--audit", where])
    assert done.exit_code == 2
    assert "name it .jsonl or .parquet" in done.stderr
    assert list(folder.iterdir()) == []


def test_an_export_that_fails_leaves_no_file(
    store: AuditStore, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(database: object) -> Iterator[Pair]:
        yield Pair("You idiot.", ("You person.",))
        raise AuditError("the audit does not work")

    folder = tmp_path / "out"
    folder.mkdir()
    monkeypatch.setattr(export, "pairs", broken)
    for name in ("x.jsonl", "x.parquet"):
        done = CliRunner().invoke(app, ["audit", "export", str(folder / name), "--audit", where])
        assert done.exit_code == 1
    assert list(folder.iterdir()) == []


def test_pairs_of_one_segment_are_one_pair(store: AuditStore) -> None:
    rewriting = guard(store)
    for _ in range(3):
        rewriting.check("You are an idiot.")
    for number in (1, 6, 7):
        decide(store.database, number, "accepted", reviewer="alice")
    (pair,) = pairs(store.database)
    assert pair.neutral == ("You are an person.",)


def test_an_export_without_an_audit_says_what_to_set(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["audit", "export", str(tmp_path / "out.jsonl")])
    assert result.exit_code == 2
    assert "GUARDRAIL_AUDIT__URL" in result.stderr


@pytest.mark.parametrize("form", ["{path}", "sqlite:///{path}"])
@pytest.mark.parametrize("name", ["none.db", "no/folder/none.db", "folder"])
def test_an_export_of_an_audit_that_is_not_there_is_an_error_and_makes_nothing(
    tmp_path: Path, form: str, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    where, target = form.format(path=tmp_path / name), tmp_path / "out.jsonl"
    result = CliRunner().invoke(app, ["audit", "export", str(target), "--audit", where])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"guardrail: there is no audit in {tmp_path / name}: ")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_export_of_a_database_without_an_audit_is_an_error_and_makes_no_tables(
    postgresql: Callable[[], str], tmp_path: Path
) -> None:
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE notes (note)").connection.close()
    for where in (postgresql(), str(tmp_path / "other.db")):
        for _ in range(2):
            result = CliRunner().invoke(app, ["audit", "export", str(tmp_path / "x.jsonl"), "--audit", where])
            assert result.exit_code == 2
            assert "there is no audit in" in result.stderr
    assert not (tmp_path / "x.jsonl").exists()


def test_an_export_of_a_file_that_is_no_audit_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("These are notes, and no database. " * 99)
    result = CliRunner().invoke(app, ["audit", "export", str(tmp_path / "out.jsonl"), "--audit", str(file)])
    assert result.exit_code == 1
    assert "file is not a database" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("correction", "failed_checks"),
    [
        ("You are a moron.", ("toxic", "lexicon")),
        ("Bananas grow in hot countries.", ("meaning", "invention")),
        ("You are an 1 person.", ("number",)),
        ("You are not an idiot.", ("toxic", "lexicon", "negation")),
    ],
)
def test_a_correction_that_checks_refuse_needs_a_second_word_that_is_recorded(
    store: AuditStore, correction: str, failed_checks: tuple[str, ...]
) -> None:
    for confirmed in ((), failed_checks[1:], ("copy",)):
        with pytest.raises(RefusedCorrectionError, match="refuse the correction") as caught:
            correct(store, 1, correction, confirmed=confirmed)
        assert caught.value.failed_checks == failed_checks
        assert correction not in str(caught.value)
    assert (record_of(store.database, 1).decision, list(pairs(store.database))) == (None, [])
    record = correct(store, 1, correction, confirmed=failed_checks)
    assert (record.correction, record.confirmed) == (correction, list(failed_checks))
    assert corrections(store.database).confirmed == 1
    assert [pair.neutral for pair in pairs(store.database)] == [(correction,)]


def test_a_correction_that_passes_needs_no_second_word(store: AuditStore) -> None:
    assert correct(store, 1, "You are a person.", confirmed=["toxic"]).confirmed == []
    assert decide(store.database, 2, "accepted", reviewer="alice").confirmed is None
    assert (corrections(store.database).confirmed, corrections(store.database).unchecked) == (0, 0)


def test_checks_of_a_correction_leave_no_trace_in_the_audit(store: AuditStore) -> None:
    with pytest.raises(RefusedCorrectionError):
        correct(store, 1, "You are a moron.")
    assert numbers(store) == [5, 4, 3, 2, 1]


def test_old_interventions_are_removed_with_their_decisions_and_new_ones_stay(
    store: AuditStore, where: str
) -> None:
    decide(store.database, 1, "accepted", reviewer="alice")
    decide(store.database, 3, "accepted", reviewer="alice")
    with store.database.transaction(write=True) as connection:
        old = datetime.now(timezone.utc) - timedelta(days=91)
        connection.execute(interventions.update().where(interventions.c.id.in_([1, 2])).values(at=old))
    command = ["audit", "prune", "--older-than", "90d", "--audit", where]
    counted = CliRunner().invoke(app, [*command, "--dry-run"])
    assert counted.stderr == "2 interventions would be removed\n"
    assert numbers(store) == [5, 4, 3, 2, 1]
    assert CliRunner().invoke(app, command).stderr == "2 interventions removed\n"
    assert numbers(store) == [5, 4, 3]
    assert record_of(store.database, 3).decision == "accepted"
    assert len(list(pairs(store.database))) == 1


def test_an_age_that_is_no_number_of_days_is_refused(where: str) -> None:
    done = CliRunner().invoke(app, ["audit", "prune", "--older-than", "soon", "--audit", where])
    assert done.exit_code == 2
    assert "a number of days such as 90d, not 'soon'" in done.stderr


# ---- over HTTP


@pytest.fixture
def client(store: AuditStore) -> Iterator[httpx.Client]:
    """A client of the real server with the audit mounted, without a key."""
    routes = audit_routes(
        store.database, Reviewers({"alice": KEY, "bob": "bobs-key-0123456789"}), guard=guard(store)
    )
    with (
        serving(create_app(guard(store), keys=Keys(), routers=[routes])) as url,
        httpx.Client(base_url=url, timeout=PATIENCE) as client,
    ):
        yield client


def test_without_a_valid_key_nothing_is_read_or_decided(client: httpx.Client) -> None:
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": KEY}):
        assert client.get("/audit/interventions", headers=headers).status_code == 401
        answer = client.post(
            "/audit/interventions/1/decision", headers=headers, json={"decision": "accepted"}
        )
        assert answer.status_code == 401
        assert "no valid audit key" in answer.json()["error"]["message"]


def test_new_paths_need_a_key_too(client: httpx.Client) -> None:
    for method, path in (
        ("GET", "/audit/me"),
        ("GET", "/audit/days"),
        ("POST", "/audit/days"),
        ("POST", "/audit/interventions"),
        ("POST", "/audit/decisions"),
    ):
        answer = client.request(method, path, json={"numbers": [1]} if method == "POST" else None)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_a_server_without_audit_keys_says_so(store: AuditStore) -> None:
    routes = audit_routes(store.database, Reviewers({}), guard=guard(store))
    with serving(create_app(guard(store), keys=Keys(), routers=[routes])) as url:
        error = get(f"{url}/audit/me", headers=ALICE).json()["error"]
    assert error["code"] == "no_audit_keys"
    assert "GUARDRAIL_AUDIT_KEYS is not set" in error["message"]


def test_a_reviewer_searches_without_the_words_in_the_address(client: httpx.Client) -> None:
    path = "/audit/interventions?action=rewritten&limit=1"
    answer = client.post(path, json={"text": "idiot"}, headers=ALICE).json()
    assert ([record["id"] for record in answer["records"]], answer["total"]) == ([3], 2)
    assert client.post(path, json={"txt": "idiot"}, headers=ALICE).status_code == 400
    long = client.post(path, json={"text": "x" * 1001}, headers=ALICE)
    assert (long.status_code, "x" * 20 in long.text) == (400, False)
    assert client.get("/audit/interventions?text=idiot", headers=ALICE).json()["total"] == 5, (
        "not in addresses"
    )
    by_day = client.post("/audit/days", json={"text": "idiot"}, headers=ALICE).json()["days"]
    assert sum(sum(one["counts"].values()) for one in by_day) == 3
    assert len(client.get("/audit/days", headers=ALICE).json()["days"]) == 30


def test_a_reviewer_accepts_several_at_once(client: httpx.Client) -> None:
    assert client.get("/audit/me", headers=ALICE).json() == {"reviewer": "alice"}
    answer = client.post("/audit/decisions", json={"numbers": [1, 4]}, headers=ALICE).json()
    assert [(record["id"], record["decision"]) for record in answer["records"]] == [(1, "accepted")]
    assert answer["refused"] == [{"id": 4, "message": "it was masked, not rewritten"}]
    for numbers in ([], [1] * 201, [-1], ["x"]):
        assert client.post("/audit/decisions", json={"numbers": numbers}, headers=ALICE).status_code == 400


def test_a_record_has_its_reasons_in_plain_words(client: httpx.Client) -> None:
    records = client.get("/audit/interventions", headers=ALICE).json()["records"]
    assert records[0]["words"] == {"detector_invalid": "the detector returned what it may not"}


def test_a_reviewer_reads_filters_and_decides(client: httpx.Client) -> None:
    answer = client.get("/audit/interventions", params={"action": "rewritten", "limit": 2}, headers=ALICE)
    assert [record["id"] for record in answer.json()["records"]] == [3, 2]
    older = client.get(
        "/audit/interventions", params={"action": "rewritten", "before": answer.json()["next"]}, headers=ALICE
    )
    assert [record["id"] for record in older.json()["records"]] == [1]
    assert older.json()["next"] is None
    decided = client.post("/audit/interventions/3/decision", json={"decision": "accepted"}, headers=ALICE)
    assert decided.json()["decision"] == "accepted"
    assert decided.json()["reviewer"] == "alice"
    assert decided.json()["before"] == XSS


def test_dates_without_a_zone_are_in_utc(client: httpx.Client) -> None:
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    for moment, count in ((now - timedelta(minutes=5), 5), (now + timedelta(minutes=5), 0)):
        answer = client.get("/audit/interventions", params={"since": moment.isoformat()}, headers=ALICE)
        assert len(answer.json()["records"]) == count


@pytest.mark.parametrize(
    ("params", "message"),
    [({"limit": "0"}, "between 1 and 200"), ({"since": "noon"}, "since"), ({"review": "maybe"}, "review")],
)
def test_a_wrong_question_is_told_what_is_wrong(
    client: httpx.Client, params: dict[str, str], message: str
) -> None:
    answer = client.get("/audit/interventions", params=params, headers=ALICE)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_wrong_decision_is_told_what_is_wrong(client: httpx.Client) -> None:
    answer = client.post("/audit/interventions/4/decision", json={"decision": "accepted"}, headers=ALICE)
    assert answer.status_code == 409
    assert "it was masked, not rewritten" in answer.json()["error"]["message"]
    answer = client.post("/audit/interventions/4/decision", json={"decision": "x", "y": 1}, headers=ALICE)
    assert answer.status_code == 400


def test_a_refused_correction_is_told_which_checks_refuse_it(client: httpx.Client) -> None:
    path, body = "/audit/interventions/1/decision", {"decision": "corrected", "correction": "You moron."}
    answer = client.post(path, json=body, headers=ALICE)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "checks_failed")
    assert error["failed_checks"] == ["toxic", "lexicon"]
    answer = client.post(path, json=body | {"confirmed": error["failed_checks"]}, headers=ALICE)
    assert answer.status_code == 200
    assert answer.json()["confirmed"] == ["toxic", "lexicon"]


def test_the_page_may_load_nothing_from_elsewhere_and_no_text_is_markup(client: httpx.Client) -> None:
    answer = client.get("/audit")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    files = {"": "text/html", "/audit.css": "text/css", "/audit.js": "text/javascript"}
    for path, media_type in files.items():
        source = client.get(f"/audit{path}")
        assert source.headers["content-type"].startswith(media_type)
        assert "http" not in source.text.replace("http-equiv", "")
        assert not any(word in source.text for word in ("innerHTML", "outerHTML", "insertAdjacent", "style="))


def test_without_reviewers_nobody_is_let_in(store: AuditStore) -> None:
    routes = audit_routes(store.database, Reviewers())
    with serving(create_app(guard(store), keys=Keys(), routers=[routes])) as url:
        answer = get(f"{url}/audit/interventions", headers={"authorization": "Bearer"})
    assert answer.status_code == 401
    assert "GUARDRAIL_AUDIT_KEYS is not set" in answer.json()["error"]["message"]


def test_reviewers_come_from_the_environment() -> None:
    read = Reviewers.from_environment({"GUARDRAIL_AUDIT_KEYS": f"alice={KEY}, bob=bobs-key=0123456789"})
    assert read.admit(f"Bearer {KEY}") == "alice"
    assert read.admit("bearer bobs-key=0123456789") == "bob"
    assert read.admit(None) is None
    assert KEY not in repr(read)
    for wrong in ("alice", f"={KEY}", "alice=short", f"alice={KEY},alice={KEY}"):
        with pytest.raises(ConfigError) as caught:
            Reviewers.from_environment({"GUARDRAIL_AUDIT_KEYS": wrong})
        assert KEY not in str(caught.value)


@pytest.mark.parametrize("shown", [None, "Bearer x", f"Basic {KEY}", f"Bearer {KEY}"])
def test_a_key_is_compared_with_every_reviewers_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, shown: str | None
) -> None:
    compared: list[bytes] = []
    in_constant_time = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return in_constant_time(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    reviewers = Reviewers({"alice": KEY, "bob": "bobs-key-0123456789"})
    assert reviewers.admit(shown) == ("alice" if shown == f"Bearer {KEY}" else None)
    assert compared == [KEY.encode(), b"bobs-key-0123456789"]


def test_records_are_json_whatever_the_text_was(where: str) -> None:
    store = AuditStore(where, include_text=True)
    guard(store).check("An idiot \ud83d said \u2028 this.")
    routes = audit_routes(store.database, Reviewers({"alice": KEY}), guard=guard(store))
    with serving(create_app(guard(store), keys=Keys(), routers=[routes])) as url:
        answer = get(f"{url}/audit/interventions", headers=ALICE)
    store.close()
    assert json.loads(answer.text)["records"][0]["before"] == "An idiot \ufffd said \u2028 this."
