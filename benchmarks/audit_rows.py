"""Fills an audit with made-up interventions and decisions, in bulk, as a busy server leaves them."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from sqlalchemy import Connection

from guardrail.audit.database import Database
from guardrail.audit.schema import interventions, reviews

__all__ = ["RARE_WORD", "fill"]

RARE_WORD = "zeppelin"
"""Stands in one of so many texts, ``RARE``."""
RARE = 200_000
SPAN = timedelta(days=90)
AT_ONCE = 10_000
ACTIONS = {"rewritten": 60.0, "masked": 25.0, "lossy": 6.0, "removed": 5.0, "passed": 4.0, "blocked": 0.002}
POLICIES = {("1" * 16, ""): 70.0, ("2" * 16, "community"): 29.9, ("3" * 16, "strict"): 0.1}
LABELS = ("toxicity", "incivility", "insult", "obscene", "identity_attack", "threat", "sexual_explicit")
NAMES = (
    "driver",
    "neighbour",
    "manager",
    "teacher",
    "waiter",
    "referee",
    "author",
    "singer",
    "mayor",
    "doctor",
)
PLACES = ("bus", "town", "office", "school", "club", "village", "paper", "band", "council", "clinic")
INSULTS = ("idiot", "moron", "fool", "clown", "liar", "fraud", "coward", "loser")
DECISIONS = {"accepted": 80.0, "rejected": 15.0, "corrected": 5.0}
REVIEWED = 0.01
"""The share of interventions that people decided on, a few of them twice."""


def fill(database: Database, rows: int, *, seed: int = 7) -> None:
    """Adds so many interventions, the newest a moment ago, and decisions on some of them."""
    dice = random.Random(seed)
    database.prepare()
    with database.transaction(write=True) as connection:
        _load(connection, interventions.name, _COLUMNS, _interventions(dice, rows))
        _load(connection, reviews.name, _DECIDED, _reviews(dice, rows))
    if not database.is_sqlite:  # as its server does by itself within minutes
        with database._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")


_COLUMNS = (
    *("at", "text_key", "kind", "start", "end", "hmac", "action", "scores", "scores_after", "similarity"),
    *("failed_checks", "degraded", "monitored", "policy", "policy_name", "detector", "lexicon", "rewriter"),
    *("before", "after"),
)
_DECIDED = ("intervention", "at", "decision", "correction", "reviewer", "confirmed")


def _interventions(dice: random.Random, rows: int) -> Iterator[tuple[Any, ...]]:
    began = datetime.now(timezone.utc) - SPAN
    actions, policies = _drawn(dice, ACTIONS), _drawn(dice, POLICIES)
    for number in range(rows):
        scores = json.dumps({label: round(dice.random() ** 2, 6) for label in LABELS})
        release = 1 if number < rows / 2 else 2
        rare = f" near the {RARE_WORD}" if number % RARE == RARE // 2 else ""
        who = f"The {dice.choice(NAMES)} of the {dice.choice(PLACES)} {number}"
        said = f"{who} is {{}}{rare}, says everybody here."
        policy, name = next(policies)
        yield (
            began + SPAN * (number / rows) + timedelta(seconds=dice.uniform(-5, 5)),
            secrets.token_hex(16),
            "edit",
            40 * dice.randint(0, 20),
            900,
            secrets.token_hex(16),
            next(actions),
            scores,
            '{"toxicity": 0.01, "incivility": 0.02}',
            dice.random(),
            "[]" if dice.random() < 0.8 else '["meaning"]',
            "[]",
            dice.random() < 0.1,
            policy,
            name,
            f"detox-minilm {release}.0 sha256:{'d' * 64}",
            f"lexicon.txt sha256:{'e' * 64}",
            f"detox-smollm2-135m {release}.0 sha256:{'f' * 64}",
            said.format(f"an {dice.choice(INSULTS)}"),
            said.format("not to my liking"),
        )


def _reviews(dice: random.Random, rows: int) -> Iterator[tuple[Any, ...]]:
    decisions = _drawn(dice, DECISIONS)
    for number in sorted(dice.choices(range(1, rows + 1), k=int(REVIEWED * rows))):
        decision = next(decisions)
        is_corrected = decision == "corrected"
        correction = f"That person {number} is wrong." if is_corrected else None
        at = datetime.now(timezone.utc)
        yield (
            number,
            at,
            decision,
            correction,
            dice.choice(("alice", "bob")),
            "[]" if is_corrected else None,
        )


def _drawn(dice: random.Random, weights: dict[Any, float]) -> Iterator[Any]:
    while True:
        yield from dice.choices([*weights], [*weights.values()], k=1000)


def _load(
    connection: Connection, table: str, columns: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    named = ", ".join(f'"{column}"' for column in columns)
    cursor: Any = connection.connection.cursor()
    if connection.dialect.name == "postgresql":
        with cursor.copy(f"COPY {table} ({named}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        return
    values = ", ".join("?" * len(columns))
    cursor.executemany(f"INSERT INTO {table} ({named}) VALUES ({values})", map(_as_sqlite, rows))


def _as_sqlite(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value for value in row
    )
