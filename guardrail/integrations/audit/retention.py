"""Removes what an audit has kept for long enough, some rows at a time, so that writers can continue."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select

from guardrail.audit.database import Database
from guardrail.audit.schema import interventions, reviews

__all__ = ["count_before", "prune"]

ROWS_AT_ONCE = 1000


def count_before(database: Database, moment: datetime) -> int:
    """How many interventions are older than a moment."""
    wanted = select(func.count()).select_from(interventions).where(interventions.c.at < moment)
    with database.transaction() as connection:
        return connection.execute(wanted).scalar_one()


def prune(database: Database, moment: datetime) -> int:
    """Removes the interventions that are older than a moment, with the decisions on them; how many they were.

    An interruption leaves none without its decisions.
    """
    oldest = select(interventions.c.id).where(interventions.c.at < moment).order_by(interventions.c.at)
    removed = 0
    while True:
        with database.transaction(write=True) as connection:
            numbers = connection.execute(oldest.limit(ROWS_AT_ONCE)).scalars().all()
            if not numbers:
                return removed
            connection.execute(delete(reviews).where(reviews.c.intervention.in_(numbers)))
            connection.execute(delete(interventions).where(interventions.c.id.in_(numbers)))
        removed += len(numbers)
