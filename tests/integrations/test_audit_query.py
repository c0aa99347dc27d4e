"""Pages of an audit: whatever is asked for, all of it comes, in order, and little else is read for it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from benchmarks.audit import queries
from benchmarks.audit_rows import fill
from guardrail.audit.database import Database
from guardrail.audit.schema import interventions, reviews
from guardrail.events import fingerprint
from guardrail.integrations.audit import query as asking
from guardrail.integrations.audit import records
from guardrail.integrations.audit.records import Query, Record, all_records, days, page
from guardrail.outcome import Action

NOW = datetime.now(timezone.utc)
ROWS = 80
WORDS = ("idiot", "Moron", "liar")
ACTIONS = ("rewritten", "masked", "blocked")
POLICIES = (("a" * 16, ""), ("b" * 16, "strict"), ("c" * 16, "a" * 16))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An audit of some rows, several of the same moment, and decisions on a third of them."""
    folder = tmp_path_factory.mktemp("audit")
    opened = Database(
        folder / "audit.db" if request.param == "sqlite" else request.getfixturevalue("postgresql")()
    )
    dice = random.Random(5)
    found = [_row(dice, number) for number in range(ROWS)]
    decided = [_review(dice, number) for number in dice.choices(range(1, ROWS + 1), k=ROWS // 3)]
    with opened.transaction(write=True) as connection:
        connection.execute(interventions.insert(), found)
        connection.execute(reviews.insert(), decided)
    yield opened
    opened.close()


def _row(dice: random.Random, number: int) -> dict[str, Any]:
    policy, name = dice.choice(POLICIES)
    before = f"{number % 7} you {dice.choice(WORDS)}"
    keeps_text = dice.random() < 0.8
    return {
        "at": NOW - timedelta(hours=dice.randint(0, 100)),
        "text_key": f"text {number // 2}",
        "kind": "edit",
        "start": number % 2,
        "end": 9,
        "hmac": fingerprint(before),
        "action": dice.choice(ACTIONS),
        "scores": {"toxicity": dice.choice((0.25, 0.75))},
        "scores_after": None,
        "similarity": None,
        "acceptable": None,
        "failed_checks": [],
        "degraded": [],
        "monitored": dice.random() < 0.3,
        "policy": policy,
        "policy_name": name,
        "detector": f"detector {dice.choice((1, 2))}",
        "lexicon": "lexicon",
        "rewriter": "none",
        "before": before if keeps_text else None,
        "after": "you person" if keeps_text else None,
    }


def _review(dice: random.Random, number: int) -> dict[str, Any]:
    decision = dice.choice(("accepted", "corrected", "rejected"))
    correction = "you Hero" if decision == "corrected" else None
    return {
        "intervention": number,
        "at": NOW,
        "decision": decision,
        "correction": correction,
        "reviewer": "alice",
        "confirmed": None,
    }


class Everything(list[Record]):
    """Every record, with a short ``repr`` for hypothesis to print."""

    def __repr__(self) -> str:
        return f"{len(self)} records"


@pytest.fixture(scope="module")
def everything(database: Database) -> Everything:
    return Everything(all_records(database))


@pytest.fixture
def short_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks that end after some rows."""
    monkeypatch.setattr(asking, "REACH", 6)
    monkeypatch.setattr(asking, "MAX_REVIEWS", 5)
    monkeypatch.setattr(records, "MAX_COUNTED", 30)
    monkeypatch.setattr(records, "ROWS_AT_ONCE", 7)


def fits(one: Record, query: Query) -> bool:
    """What a query means, said once more."""
    text = (query.text or "").casefold()
    words = " | ".join(filter(None, (one.before, one.after, one.correction))).casefold()
    return all(
        (
            query.action in (None, one.action),
            query.mode in (None, "monitored" if one.monitored else "enforced"),
            query.policy in (None, one.policy, one.policy_name),
            query.key in (None, one.text_key),
            query.review in (None, one.decision or "open"),
            query.label is None or one.scores.get(query.label, -1.0) >= query.least,
            query.since is None or one.at >= query.since,
            query.until is None or one.at < query.until,
            query.model is None or query.model in f"{one.detector} {one.lexicon} {one.rewriter}",
            query.text is None
            or text in words
            or one.hmac == fingerprint(query.text)
            or query.number == one.id,
        )
    )


MOMENTS = st.integers(0, 100).map(lambda hours: NOW - timedelta(hours=hours))
CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "action": st.sampled_from(ACTIONS),
    "mode": st.sampled_from(("enforced", "monitored")),
    "policy": st.sampled_from(("a" * 16, "c" * 16, "strict", "none")),
    "key": st.sampled_from(("text 3", "text 20", "none")),
    "review": st.sampled_from(("open", "accepted", "corrected", "rejected")),
    "label": st.sampled_from(("toxicity", "threat")),
    "since": MOMENTS,
    "until": MOMENTS,
    "model": st.sampled_from(("detector", "tor 2", "none")),
    "text": st.sampled_from(("IDIOT", "hero", "3 you liar", "#12", "none")),
}


@st.composite
def queries_of_few_conditions(draw: st.DrawFn) -> Query:
    names = draw(st.lists(st.sampled_from([*CONDITIONS]), unique=True, max_size=3))
    return Query(limit=draw(st.integers(1, 9)), **{name: draw(CONDITIONS[name]) for name in names})


QUERIES = queries_of_few_conditions()
RUN = settings(
    deadline=None,
    max_examples=60,
    phases=[phase for phase in Phase if phase is not Phase.shrink],  # an example is a walk through all pages
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@RUN
@given(query=QUERIES)
def test_the_pages_of_any_query_are_all_that_fits_and_the_newest_first(
    database: Database, everything: Everything, short_reach: None, query: Query
) -> None:
    fitting = (one for one in everything if fits(one, query))
    wanted = sorted(fitting, key=lambda one: (one.at, one.id), reverse=True)
    found: list[Record] = []
    following, pages = None, 0
    while True:
        one = page(database, Query(**{**_settings(query), "before": following}))
        found += one.records
        assert one.total == len(wanted) if one.exact else one.total <= len(wanted)
        pages += 1
        assert pages <= 2 * ROWS
        if (following := one.next) is None:
            break
    assert found == wanted


@RUN
@given(query=QUERIES)
def test_days_count_all_that_fits_as_far_as_they_go_back(
    database: Database, everything: Everything, short_reach: None, query: Query
) -> None:
    found = days(database, query)
    counted = Counter((one.at.date(), one.action) for one in everything if fits(one, query))
    for number, one in enumerate(found):
        wanted = {action: counted[one.day, action] for action in map(str, Action) if counted[one.day, action]}
        if number:
            assert one.counts == wanted
        else:
            assert all(count <= wanted.get(action, 0) for action, count in one.counts.items())
    by_index = Query(
        action=query.action, mode=query.mode, since=query.since, until=query.until, limit=query.limit
    )
    if query == by_index:
        assert sum(sum(one.counts.values()) for one in found) == sum(counted.values())


def _settings(query: Query) -> dict[str, Any]:
    return {name: getattr(query, name) for name in query.__slots__}


def test_every_record_is_read_once_and_in_order_of_its_number(database: Database, short_reach: None) -> None:
    assert [one.id for one in all_records(database)] == list(range(1, ROWS + 1))


def test_a_page_behind_a_record_that_was_removed_is_empty(database: Database) -> None:
    behind = page(database, Query(before=10 * ROWS))
    assert (behind.records, behind.next, behind.total) == ([], None, ROWS)


def test_postgresql_plans_a_page_with_its_values_however_often_it_was_asked_for(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite always plans a statement anew")
    for _ in range(12):
        page(database, Query(label="toxicity"))
    with database.transaction() as connection:
        prepared = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
    assert prepared == 0


def test_a_page_of_ten_times_as_many_rows_is_no_more_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "REACH", 300)
    monkeypatch.setattr(asking, "MAX_REVIEWS", 5)
    monkeypatch.setattr(records, "MAX_COUNTED", 300)
    small, large = (steps(tmp_path / f"{rows}.db", rows) for rows in (1000, 10_000))
    dearer = {name: (small[name], large[name]) for name in large if large[name] > 1.5 * small[name] + 100}
    assert not dearer


def steps(file: Path, rows: int) -> dict[str, int]:
    """How many hundred instructions of SQLite's machine each page of the benchmark takes."""
    database = Database(file)
    fill(database, rows)
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    @event.listens_for(database._engine, "checkout")
    def _(connection: Any, *rest: object) -> None:
        connection.set_progress_handler(count, 100)

    found = {}
    for name, query in queries(database).items():
        counted = 0
        page(database, query)
        found[name] = counted
    database.close()
    return found
