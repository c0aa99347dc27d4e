"""What people decide on interventions, and the training pairs that come of that."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from sqlalchemy import func, null, select

from guardrail.audit.database import Database
from guardrail.audit.schema import interventions, reviews
from guardrail.audit.trail import now
from guardrail.errors import UsageError
from guardrail.guard import Guard
from guardrail.integrations.audit.query import LAST_REVIEWS
from guardrail.integrations.audit.records import LONGEST_PAGE, Record, record_of, records_of
from guardrail.outcome import Action

__all__ = [
    "Accepted",
    "Corrections",
    "Decision",
    "Pair",
    "RefusedCorrectionError",
    "accept_all",
    "corrections",
    "decide",
    "pairs",
]

Decision = Literal["accepted", "corrected", "rejected"]
"""``rejected`` is a false alarm: the text should have passed. The others say that it was rightly flagged."""
LONGEST_CORRECTION = 10_000
_ROWS_AT_ONCE = 500


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


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of several acceptances: the records, and by number why others were not accepted."""

    records: list[Record]
    refused: dict[int, str]


class RefusedCorrectionError(UsageError):
    """Checks refuse a correction, and the reviewer has not confirmed it; ``failed_checks`` names them."""

    def __init__(self, number: int, failed_checks: tuple[str, ...]) -> None:
        super().__init__(
            f"intervention {number} is not corrected: the checks {', '.join(failed_checks)} refuse the "
            "correction, as they would refuse a rewrite; change it, or confirm these checks"
        )
        self.failed_checks = failed_checks


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
    Raises UsageError if nothing can be learned from it: a text that is not kept, an accepted text that is
    not a rewrite (in monitor mode any may be accepted, as rightly flagged), a correction that is empty,
    overlong or equal to the original, and a degraded text that is rejected.
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


def accept_all(database: Database, numbers: Sequence[int], *, reviewer: str) -> Accepted:
    """Accepts several rewrites at once; those that cannot be accepted are named with the reason.

    One that is accepted already gets no further decision. Raises UsageError for more than a page of them.
    """
    if not 1 <= len(numbers) <= LONGEST_PAGE:
        raise UsageError(
            f"between 1 and {LONGEST_PAGE} interventions are accepted at a time, not {len(numbers)}"
        )
    found = {record.id: record for record in records_of(database, numbers)}
    refused = {number: "the audit has no such intervention" for number in numbers if number not in found}
    refused |= {
        record.id: problem for record in found.values() if (problem := _undecidable(record, "accepted", None))
    }
    rows = [
        {"intervention": number, "at": now(), "decision": "accepted", "reviewer": reviewer}
        for number, record in found.items()
        if number not in refused and record.decision != "accepted"
    ]
    if rows:
        with database.transaction(write=True) as connection:
            connection.execute(reviews.insert(), rows)
    return Accepted(records_of(database, [number for number in found if number not in refused]), refused)


def pairs(database: Database) -> Iterator[Pair]:
    """Training pairs from accepted and corrected interventions, one for each toxic segment, in its order.

    A correction that was never checked, as by an earlier version, is left out.
    """
    last = LAST_REVIEWS
    neutral = func.coalesce(last.c.correction, interventions.c.after)
    wanted = (
        select(interventions.c.before.label("toxic"), neutral.label("neutral"))
        .join(last, last.c.intervention == interventions.c.id)
        .where(interventions.c.before.is_not(None))
        .where(
            ((last.c.decision == "accepted") & interventions.c.monitored.is_(False))
            | last.c.confirmed.is_not(null())
        )
        .order_by(interventions.c.before, interventions.c.id)
        .execution_options(yield_per=_ROWS_AT_ONCE)
    )
    with database.transaction() as connection:
        found = connection.execute(wanted)
        for toxic, rows in groupby(found, key=lambda row: row.toxic):
            yield Pair(toxic, tuple(dict.fromkeys(row.neutral for row in rows)))


def corrections(database: Database) -> Corrections:
    """How far the corrections that count were checked."""
    last = LAST_REVIEWS
    with database.transaction() as connection:
        found = connection.execute(select(last.c.confirmed).where(last.c.decision == "corrected")).scalars()
        checked = [None if failed is None else len(failed) for failed in found]
    return Corrections(sum(map(bool, checked)), checked.count(None))


def _undecidable(record: Record, decision: Decision, correction: str | None) -> str | None:
    if record.before is None:
        return "its text is not kept (include_text)"
    if decision == "rejected":
        return None
    if decision == "accepted":
        is_fit = record.monitored or record.action == str(Action.REWRITTEN)
        return None if is_fit else f"it was {record.action}, not rewritten"
    if correction is None or not correction.strip():
        return "the correction is empty"
    if len(correction) > LONGEST_CORRECTION:
        return f"the correction is longer than {LONGEST_CORRECTION} characters"
    if correction.strip() == record.before.strip():
        return "the correction is the original: reject it as a false alarm if it should have passed"
    return None
