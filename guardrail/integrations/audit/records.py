"""What is in an audit: records by what they hold, how many there are, and how many on each day."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time, timedelta, timezone
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, CursorResult, Select, func, select

from guardrail.audit.database import Database
from guardrail.audit.schema import interventions
from guardrail.audit.trail import now
from guardrail.errors import UsageError
from guardrail.integrations.audit.query import LAST_REVIEWS, LONGEST_PAGE, Look, Query, look, place_of
from guardrail.outcome import Action

__all__ = [
    "LONGEST_PAGE",
    "Day",
    "Page",
    "Query",
    "Record",
    "all_records",
    "days",
    "page",
    "record_of",
    "records_of",
]

MAX_COUNTED = 10_000
ROWS_AT_ONCE = 1000
_TABLE = interventions.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One intervention as it was recorded, and the last decision on it. Shows no text in its ``repr``.

    Of a ``monitored`` one, ``action`` is what an enforcing policy would have done.

    ``confirmed`` names the checks that refuse the correction, which its reviewer confirmed all the same; None
    if nothing was checked.
    """

    id: int
    at: datetime
    text_key: str
    kind: str
    start: int
    end: int
    hmac: str
    action: str
    scores: dict[str, float]
    scores_after: dict[str, float] | None
    similarity: float | None
    acceptable: float | None
    failed_checks: list[str]
    degraded: list[str]
    monitored: bool
    policy: str
    policy_name: str
    detector: str
    lexicon: str
    rewriter: str
    before: str | None
    after: str | None
    decision: str | None
    correction: str | None
    reviewer: str | None
    reviewed_at: datetime | None
    confirmed: list[str] | None

    def __repr__(self) -> str:
        return f"Record(id={self.id}, action={self.action!r}, decision={self.decision!r})"


@dataclass(frozen=True, slots=True)
class Page:
    """Some records, newest first; ``next`` is the ``before`` of the page that follows, None on the last.

    A page may have fewer records than asked for, or none, and another one follow: conditions that no index
    serves are looked for in some thousand records at a time. ``total`` counts the records of all pages;
    there may be more than that if it is not ``exact``.
    """

    records: list[Record]
    next: int | None
    total: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Day:
    """How many interventions of each action a day had, in UTC."""

    day: date
    counts: dict[str, int]


def page(database: Database, query: Query) -> Page:
    """The records that a query asks for."""
    with database.transaction() as connection:
        newest = look(connection, query)
        wanted, below = newest, None
        if query.before is not None:
            below = place_of(connection, query.before)
            wanted = look(connection, query, below=below)
        is_removed = query.before is not None and below is None  # and with it all that is older
        found = [] if is_removed else wanted.newest(connection, query.limit + 1, below=below)
        records = _read(connection, [place.id for place in found[: query.limit]])
        is_whole = query.before is None and len(found) <= query.limit
        total = len(found) if is_whole else newest.count(connection, up_to=MAX_COUNTED + 1)
    following = wanted.floor
    if len(found) > query.limit:
        following = found[query.limit - 1]
    return Page(
        records,
        None if following is None or is_removed else following.id,
        min(total, MAX_COUNTED),
        newest.floor is None and total <= MAX_COUNTED,
    )


def days(database: Database, query: Query, *, last: int = 30) -> list[Day]:
    """The days of a query's records, one after the other: the last ones before ``until``, or up to today.

    Fewer, if conditions that no index serves are looked for; the first of them may then not be complete.
    """
    end = (query.until - timedelta(microseconds=1) if query.until else now()).astimezone(timezone.utc).date()
    since = _midnight(end - timedelta(days=last - 1))
    if query.since is not None:
        since = max(since, query.since.astimezone(timezone.utc))
    if since.date() > end:
        return []
    asked = replace(query, since=since)
    indexed = replace(asked, text=None, policy=None, label=None, model=None, key=None, review=None)
    start = since.date()
    with database.transaction() as connection:
        if asked == indexed:
            found: Iterable[tuple[date, str, int]] = _counted(connection, asked, _days(start, end))
        else:
            wanted = look(connection, asked)
            start = start if wanted.floor is None else wanted.floor.at.date()
            found = _grouped(connection, wanted)
        every = {day: dict[str, int]() for day in _days(start, end)}
        for day, action, number in found:
            counts = every.setdefault(day, {})
            counts[action] = counts.get(action, 0) + number
    return [Day(day, counts) for day, counts in sorted(every.items())]


def records_of(database: Database, numbers: Collection[int]) -> list[Record]:
    """The records with these numbers, as far as there are such, newest first."""
    with database.transaction() as connection:
        return _read(connection, numbers)


def record_of(database: Database, number: int) -> Record:
    """One record; UsageError if there is none."""
    found = records_of(database, [number])
    if not found:
        raise UsageError(f"the audit has no intervention {number}")
    return found[0]


def all_records(database: Database) -> Iterator[Record]:
    """Every record, by number. Some are read at a time, so that nobody who writes or prunes has to wait."""
    wanted = _with_decision().order_by(_TABLE.id).limit(ROWS_AT_ONCE)
    last = -1
    while True:
        with database.transaction() as connection:
            found = _records(connection.execute(wanted.where(_TABLE.id > last)))
        if not found:
            return
        yield from found
        last = found[-1].id


def _counted(connection: Connection, query: Query, found: list[date]) -> Iterator[tuple[date, str, int]]:
    """How many records the days have of each action: read from an index alone, which is quick."""
    edges = [query.since, *map(_midnight, found[1:]), query.until or _midnight(found[-1] + timedelta(days=1))]
    modes = [False, True] if query.mode is None else [query.mode == "monitored"]
    number = select(func.count()).select_from(interventions).where(_TABLE.monitored.in_(modes))
    for action in [query.action] if query.action else map(str, Action):
        of_action = number.where(_TABLE.action == action)
        each = [of_action.where(_TABLE.at >= one, _TABLE.at < other) for one, other in pairwise(edges)]
        counts = connection.execute(select(*(one.scalar_subquery() for one in each))).one()
        yield from ((day, action, count) for day, count in zip(found, counts, strict=True) if count)


def _grouped(connection: Connection, wanted: Look) -> Iterator[tuple[date, str, int]]:
    """The same of what a look reaches."""
    at = func.timezone("UTC", _TABLE.at) if connection.dialect.name == "postgresql" else _TABLE.at
    day = func.date(at).label("day")
    for chosen in wanted.selects(day, _TABLE.action, func.count().label("number")):
        for row in connection.execute(chosen.group_by(day, _TABLE.action)):
            yield date.fromisoformat(str(row.day)), row.action, row.number


def _days(start: date, end: date) -> list[date]:
    return [start + timedelta(days=number) for number in range((end - start).days + 1)]


def _read(connection: Connection, numbers: Collection[int]) -> list[Record]:
    wanted = _with_decision().where(_TABLE.id.in_(numbers)).order_by(_TABLE.at.desc(), _TABLE.id.desc())
    return _records(connection.execute(wanted))


def _with_decision() -> Select[Any]:
    last = LAST_REVIEWS.c
    return select(
        interventions,
        last.decision,
        last.correction,
        last.reviewer,
        last.confirmed,
        last.at.label("reviewed_at"),
    ).outerjoin(LAST_REVIEWS, last.intervention == _TABLE.id)


def _records(found: CursorResult[Any]) -> list[Record]:
    return [Record(**{field.name: row[field.name] for field in fields(Record)}) for row in found.mappings()]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), timezone.utc)
