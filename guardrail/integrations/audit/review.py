"""What people ask of an audit and add to it: pages of interventions, decisions on them, training pairs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from itertools import groupby
from typing import Any, Literal

from sqlalchemy import Float, RowMapping, Select, cast, func, null, select

from guardrail.audit.database import Database
from guardrail.audit.schema import interventions, reviews
from guardrail.audit.trail import now
from guardrail.errors import UsageError
from guardrail.guard import Guard
from guardrail.outcome import Action

__all__ = [
    "Corrections",
    "Decision",
    "Page",
    "Pair",
    "Query",
    "Record",
    "RefusedCorrectionError",
    "corrections",
    "decide",
    "page",
    "pairs",
    "record_of",
]

Decision = Literal["accepted", "corrected"]
LONGEST_PAGE = 200
LONGEST_CORRECTION = 10_000
_ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which interventions are wanted; None leaves a condition out, and all conditions hold together.

    ``label`` asks for a score of at least ``least`` under that label. ``since`` is included, ``until`` is
    not. ``model`` is a part of the identity of detector, lexicon or rewriter. ``review`` is ``open`` where
    nobody has decided. ``before`` is the ``next`` of an earlier page; the newest come first.
    """

    action: str | None = None
    label: str | None = None
    least: float = 0.5
    since: datetime | None = None
    until: datetime | None = None
    policy: str | None = None
    model: str | None = None
    key: str | None = None
    review: Literal["open", "accepted", "corrected"] | None = None
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

    ``confirmed`` names the checks that refuse the correction, which its reviewer confirmed all the same; None
    where nothing was checked.
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
    policy: str
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
    """Some records, newest first; ``next`` is the ``before`` of the page that follows, None on the last."""

    records: list[Record]
    next: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A toxic segment with the neutral versions that people accepted or wrote."""

    toxic: str
    neutral: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Corrections:
    """How many corrections that count were confirmed although checks refuse them, and how many were never
    checked, which are not exported."""

    confirmed: int
    unchecked: int


class RefusedCorrectionError(UsageError):
    """Checks refuse a correction, and the reviewer has not confirmed it; ``failed_checks`` names them."""

    def __init__(self, number: int, failed_checks: tuple[str, ...]) -> None:
        super().__init__(
            f"intervention {number} is not corrected: the checks {', '.join(failed_checks)} refuse the "
            "correction, as they would refuse a rewrite; change it, or confirm these checks"
        )
        self.failed_checks = failed_checks


def page(database: Database, query: Query) -> Page:
    """The records that a query asks for."""
    with database.transaction() as connection:
        rows = connection.execute(_filtered(query).limit(query.limit + 1)).mappings().all()
    records = [_record(row) for row in rows[: query.limit]]
    return Page(records, records[-1].id if len(rows) > query.limit else None)


def record_of(database: Database, number: int) -> Record:
    """One record; UsageError where there is none."""
    with database.transaction() as connection:
        row = connection.execute(_everything().where(interventions.c.id == number)).mappings().first()
    if row is None:
        raise UsageError(f"the audit has no intervention {number}")
    return _record(row)


def decide(
    database: Database,
    number: int,
    decision: Decision,
    *,
    reviewer: str,
    guard: Guard | None = None,
    correction: str | None = None,
    confirmed: Collection[str] = (),
) -> Record:
    """Adds a decision on an intervention, whose last decision counts, and returns the record.

    A correction passes the checks that ``guard``, or the default guard, makes of a rewrite. One that fails
    raises RefusedCorrectionError, unless ``confirmed`` names every check that refuses it; that is recorded.
    Raises UsageError where nothing can be learned from it: a text that is not kept, an accepted text that is
    no rewrite, a correction that is empty, overlong or equal to the original.
    """
    record = record_of(database, number)
    if problem := _undecidable(record, decision, correction):
        raise UsageError(f"intervention {number} cannot be {decision}: {problem}")
    kept = correction.strip() if correction is not None and decision == "corrected" else None
    refused = None if kept is None else (guard or Guard()).verify(str(record.before), kept)
    if refused and not set(refused) <= set(confirmed):
        raise RefusedCorrectionError(number, refused)
    with database.transaction(write=True) as connection:
        connection.execute(
            reviews.insert().values(
                intervention=number,
                at=now(),
                decision=decision,
                correction=kept,
                reviewer=reviewer,
                confirmed=None if refused is None else list(refused),
            )
        )
    return record_of(database, number)


def pairs(database: Database) -> Iterator[Pair]:
    """Training pairs from accepted and corrected interventions, one for each toxic segment, in its order.

    A correction that was never checked, as by an earlier version, is left out.
    """
    last = _last_reviews()
    neutral = func.coalesce(last.c.correction, interventions.c.after)
    wanted = (
        select(interventions.c.before.label("toxic"), neutral.label("neutral"))
        .join(last, last.c.intervention == interventions.c.id)
        .where(interventions.c.before.is_not(None))
        .where((last.c.decision == "accepted") | last.c.confirmed.is_not(null()))
        .order_by(interventions.c.before, interventions.c.id)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    with database.transaction() as connection:
        found = connection.execute(wanted)
        for toxic, rows in groupby(found, key=lambda row: row.toxic):
            yield Pair(toxic, tuple(dict.fromkeys(row.neutral for row in rows)))


def corrections(database: Database) -> Corrections:
    """How far the corrections that count were checked."""
    last = _last_reviews()
    with database.transaction() as connection:
        found = connection.execute(select(last.c.confirmed).where(last.c.decision == "corrected")).scalars()
        checked = [None if failed is None else len(failed) for failed in found]
    return Corrections(sum(map(bool, checked)), checked.count(None))


def _undecidable(record: Record, decision: Decision, correction: str | None) -> str | None:
    if record.before is None:
        return "its text is not kept (include_text)"
    if decision == "accepted":
        return None if record.action == str(Action.REWRITTEN) else f"it was {record.action}, not rewritten"
    if correction is None or not correction.strip():
        return "the correction is empty"
    if len(correction) > LONGEST_CORRECTION:
        return f"the correction is longer than {LONGEST_CORRECTION} characters"
    return "the correction is the original" if correction.strip() == record.before.strip() else None


def _last_reviews() -> Any:
    newest = select(func.max(reviews.c.id)).group_by(reviews.c.intervention)
    return select(reviews).where(reviews.c.id.in_(newest)).subquery("last")


def _everything() -> Select[Any]:
    last = _last_reviews()
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
    equal = {"action": table.action, "policy": table.policy, "key": table.text_key}
    for name, column in equal.items():
        if (value := getattr(query, name)) is not None:
            chosen = chosen.where(column == value)
    if query.since is not None:
        chosen = chosen.where(table.at >= query.since)
    if query.until is not None:
        chosen = chosen.where(table.at < query.until)
    if query.before is not None:
        chosen = chosen.where(table.id < query.before)
    if query.label is not None:
        chosen = chosen.where(cast(table.scores[query.label].as_string(), Float) >= query.least)
    if query.model is not None:
        named = [column.contains(query.model, autoescape=True) for column in _models()]
        chosen = chosen.where(named[0] | named[1] | named[2])
    if query.review is not None:
        chosen = chosen.where(decision.is_(None) if query.review == "open" else decision == query.review)
    return chosen


def _models() -> list[Any]:
    return [interventions.c.detector, interventions.c.lexicon, interventions.c.rewriter]


def _record(row: RowMapping) -> Record:
    return Record(**{field.name: row[field.name] for field in fields(Record)})
