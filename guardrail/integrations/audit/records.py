"""What is in an audit: records by what they hold, how many there are, and how many on each day."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Literal

from sqlalchemy import Float, RowMapping, Select, cast, func, or_, select

from guardrail.audit.database import Database
from guardrail.audit.schema import interventions, reviews
from guardrail.audit.trail import now
from guardrail.errors import UsageError
from guardrail.events import fingerprint
from guardrail.outcome import Action

__all__ = [
    "LONGEST_PAGE",
    "Day",
    "Page",
    "Query",
    "Record",
    "days",
    "last_reviews",
    "page",
    "record_of",
    "records_of",
]

LONGEST_PAGE = 200
_NUMBER = re.compile(r"#(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which interventions are wanted; None leaves a condition out, and all conditions hold together.

    ``label`` asks for a score of at least ``least`` under that label. ``since`` is included, ``until`` is
    not. ``mode`` is ``monitored`` for what was judged in monitor mode, where nothing is done. ``policy`` is
    the digest or the name of a policy. ``model`` is a part of the identity of detector, lexicon or rewriter.
    ``review`` is ``open`` if nobody has decided. ``text`` is a part of a text before, after or corrected,
    in capitals or not, or a whole segment even if texts are not kept (by its HMAC), or ``#`` and a number.
    ``before`` is the ``next`` of an earlier page; the newest come first.
    """

    action: str | None = None
    label: str | None = None
    least: float = 0.5
    since: datetime | None = None
    until: datetime | None = None
    policy: str | None = None
    model: str | None = None
    key: str | None = None
    mode: Literal["enforced", "monitored"] | None = None
    review: Literal["open", "accepted", "corrected", "rejected"] | None = None
    text: str | None = field(default=None, repr=False)
    before: int | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= LONGEST_PAGE:
            raise UsageError(f"a page has between 1 and {LONGEST_PAGE} rows, not {self.limit}")
        if self.action is not None and self.action not in {str(action) for action in Action}:
            raise UsageError(f"no action {self.action!r}; there are {', '.join(map(str, Action))}")


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

    ``total`` counts the records of all pages.
    """

    records: list[Record]
    next: int | None
    total: int


@dataclass(frozen=True, slots=True)
class Day:
    """How many interventions of each action a day had, in UTC."""

    day: date
    counts: dict[str, int]


def page(database: Database, query: Query) -> Page:
    """The records that a query asks for."""
    wanted = _filtered(query)
    shown = wanted if query.before is None else wanted.where(interventions.c.id < query.before)
    with database.transaction() as connection:
        rows = connection.execute(shown.limit(query.limit + 1)).mappings().all()
        total = connection.execute(select(func.count()).select_from(_matching(wanted))).scalar_one()
    records = [_record(row) for row in rows[: query.limit]]
    return Page(records, records[-1].id if len(rows) > query.limit else None, total)


def days(database: Database, query: Query, *, last: int = 30) -> list[Day]:
    """The days of a query's records, one after the other: the last ones before ``until``, or up to today."""
    end = (query.until - timedelta(microseconds=1) if query.until else now()).astimezone(timezone.utc).date()
    start = end - timedelta(days=last - 1)
    if query.since is not None:
        start = max(start, query.since.astimezone(timezone.utc).date())
    midnight = datetime.combine(start, time(), timezone.utc)
    found = _matching(_filtered(query).where(interventions.c.at >= midnight))
    at = found.c.at if database.is_sqlite else func.timezone("UTC", found.c.at)
    day = func.date(at).label("day")
    counted = select(day, found.c.action, func.count().label("number")).group_by(day, found.c.action)
    every = {start + timedelta(days=number): dict[str, int]() for number in range((end - start).days + 1)}
    with database.transaction() as connection:
        for row in connection.execute(counted):
            every.setdefault(date.fromisoformat(str(row.day)), {})[row.action] = row.number
    return [Day(day, counts) for day, counts in sorted(every.items())]


def records_of(database: Database, numbers: Collection[int]) -> list[Record]:
    """The records with these numbers, as far as there are such, newest first."""
    with database.transaction() as connection:
        rows = connection.execute(_everything().where(interventions.c.id.in_(numbers))).mappings().all()
    return [_record(row) for row in rows]


def record_of(database: Database, number: int) -> Record:
    """One record; UsageError if there is none."""
    found = records_of(database, [number])
    if not found:
        raise UsageError(f"the audit has no intervention {number}")
    return found[0]


def last_reviews() -> Any:
    """The decision that counts for each intervention that has one, as a table."""
    newest = select(func.max(reviews.c.id)).group_by(reviews.c.intervention)
    return select(reviews).where(reviews.c.id.in_(newest)).subquery("last")


def _everything() -> Select[Any]:
    last = last_reviews()
    return (
        select(
            interventions,
            last.c.decision,
            last.c.correction,
            last.c.reviewer,
            last.c.confirmed,
            last.c.at.label("reviewed_at"),
        )
        .outerjoin(last, last.c.intervention == interventions.c.id)
        .order_by(interventions.c.id.desc())
    )


def _filtered(query: Query) -> Select[Any]:
    table, chosen = interventions.c, _everything()
    decision = chosen.selected_columns["decision"]
    equal = {"action": table.action, "key": table.text_key}
    for name, column in equal.items():
        if (value := getattr(query, name)) is not None:
            chosen = chosen.where(column == value)
    if query.policy is not None:
        chosen = chosen.where(or_(table.policy == query.policy, table.policy_name == query.policy))
    if query.mode is not None:
        chosen = chosen.where(table.monitored.is_(query.mode == "monitored"))
    if query.since is not None:
        chosen = chosen.where(table.at >= query.since)
    if query.until is not None:
        chosen = chosen.where(table.at < query.until)
    if query.label is not None:
        chosen = chosen.where(cast(table.scores[query.label].as_string(), Float) >= query.least)
    if query.model is not None:
        named = [column.contains(query.model, autoescape=True) for column in _models()]
        chosen = chosen.where(or_(*named))
    if query.review is not None:
        chosen = chosen.where(decision.is_(None) if query.review == "open" else decision == query.review)
    return chosen if query.text is None else chosen.where(_mentions(query.text, chosen))


def _matching(chosen: Select[Any]) -> Any:
    """The rows that fit, for counting: when they are from and what was done."""
    return chosen.with_only_columns(interventions.c.at, interventions.c.action).order_by(None).subquery()


def _mentions(text: str, chosen: Select[Any]) -> Any:
    if number := _NUMBER.fullmatch(text.strip()):
        return interventions.c.id == int(number[1])
    places = (interventions.c.before, interventions.c.after, chosen.selected_columns["correction"])
    found = [place.icontains(text, autoescape=True) for place in places]
    return or_(interventions.c.hmac == fingerprint(text), *found)


def _models() -> list[Any]:
    return [interventions.c.detector, interventions.c.lexicon, interventions.c.rewriter]


def _record(row: RowMapping) -> Record:
    return Record(**{field.name: row[field.name] for field in fields(Record)})
