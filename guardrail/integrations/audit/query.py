"""What is asked of an audit, as ranges of its indexes: a large one answers as quickly as a small one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Select,
    and_,
    cast,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    tuple_,
)

from guardrail.audit.schema import interventions, reviews
from guardrail.errors import UsageError
from guardrail.events import fingerprint
from guardrail.outcome import Action

__all__ = ["LAST_REVIEWS", "LONGEST_PAGE", "Look", "Place", "Query", "look", "place_of"]

LONGEST_PAGE = 200
REACH = 10_000
"""Rows that one look reads at most to find those that fit conditions without an index, as parts of texts."""
MAX_REVIEWS = 2_000
"""Of so many decisions of a kind at most, all are looked at; more are dense enough to be met on the way."""
_NUMBER = re.compile(r"#(\d{1,18})", re.ASCII)
_TABLE = interventions.c
_newer = reviews.alias("newer")
_is_outdated = exists().where(_newer.c.intervention == reviews.c.intervention, _newer.c.id > reviews.c.id)
LAST_REVIEWS = select(reviews).where(~_is_outdated).subquery("last")
"""The decision that counts for each intervention that has one, as a table."""
Condition = ColumnElement[bool]


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

    @property
    def number(self) -> int | None:
        """The number that the text asks for, if it is one."""
        found = _NUMBER.fullmatch((self.text or "").strip())
        return int(found[1]) if found else None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a record stands among the others: by its time, and by its number among those of the same time."""

    at: datetime
    id: int


@dataclass(frozen=True, slots=True)
class Look:
    """Ranges of an index, which of their rows fit, and the oldest ``floor`` that they are read to.

    ``floor`` is None if they are read to their ends. ``is_small`` says that they are read as a whole.
    """

    ranges: Sequence[Condition]
    rest: Mapping[str, Condition]
    since: datetime | None = None
    until: datetime | None = None
    floor: Place | None = None
    is_small: bool = False

    def selects(self, *columns: ColumnElement[Any], below: Place | None = None) -> Iterator[Select[Any]]:
        """What reads these columns of the rows that fit and are older than ``below``: one per range."""
        for one in self.ranges:
            chosen = select(*columns).select_from(interventions).where(one, *self._bounds(below))
            if self.rest.keys() & {"review", "text"}:
                is_on = LAST_REVIEWS.c.intervention == _TABLE.id
                chosen = chosen.outerjoin_from(interventions, LAST_REVIEWS, is_on)
            yield chosen.where(*self.rest.values())

    def _bounds(self, below: Place | None) -> Iterator[Condition]:
        """The narrower bound of each side alone: of two, SQLite takes the first that it finds.

        Between two places their times follow: PostgreSQL knows only of those how few rows lie between them.
        """
        place = tuple_(_TABLE.at, _TABLE.id)
        if self.floor is not None:
            yield place >= _constant(self.floor)
        elif self.since is not None:
            yield _TABLE.at >= self.since
        if below is not None and (self.until is None or below.at < self.until):
            yield place < _constant(below)
            if self.floor is not None:
                yield _TABLE.at.between(self.floor.at, below.at)
        elif self.until is not None:
            yield _TABLE.at < self.until

    def newest(self, connection: Connection, limit: int, *, below: Place | None = None) -> list[Place]:
        """The places of the newest rows that fit and are older than ``below``, newest first."""
        found: list[Place] = []
        for chosen in self.selects(_TABLE.at, _TABLE.id, below=below):
            ordered = chosen if self.is_small else _newest_first(chosen).limit(limit)
            found += [Place(*row) for row in connection.execute(ordered)]
        return sorted(found, reverse=True)[:limit]

    def count(self, connection: Connection, *, up_to: int) -> int:
        """How many rows fit, or ``up_to`` if there are more."""
        counted = 0
        for chosen in self.selects(literal(1)):
            within = chosen.limit(up_to - counted).subquery()
            counted += connection.execute(select(func.count()).select_from(within)).scalar_one()
        return counted


def look(connection: Connection, query: Query, *, below: Place | None = None) -> Look:
    """The quickest look at the rows that a query asks for and that are older than ``below``."""
    found: list[Look] = []
    for ranges, covered, is_small in _ranges(connection, query):
        rest = {name: one for name, one in _conditions(query).items() if name not in covered}
        one = Look(ranges, rest, query.since, query.until, is_small=is_small)
        if is_small or not rest:
            return one
        found.append(replace(one, floor=_floor(connection, one, below)))
        if found[-1].floor is None:
            return found[-1]
    return min(found, key=lambda one: one.floor or Place(datetime.max, 0))


def place_of(connection: Connection, number: int) -> Place | None:
    """Where a record stands; None if there is none of that number."""
    row = connection.execute(select(_TABLE.at, _TABLE.id).where(_TABLE.id == number)).one_or_none()
    return None if row is None else Place(*row)


def _ranges(
    connection: Connection, query: Query
) -> Iterator[tuple[Sequence[Condition], frozenset[str], bool]]:
    """Ranges of an index that hold all that is asked for, what they make sure of, and if they are short."""
    if query.number is not None:
        yield [_TABLE.id == query.number], frozenset({"text"}), True
    elif query.key is not None:
        yield [_TABLE.text_key == query.key], frozenset({"key"}), True
    elif _is_rare(connection, query.review):
        reviewed = select(reviews.c.intervention).where(reviews.c.decision == query.review)
        yield [_TABLE.id.in_(reviewed)], frozenset(), True
    else:
        if query.policy is not None:
            named = and_(_TABLE.policy_name == query.policy, _plain(_TABLE.policy) != query.policy)
            yield [_TABLE.policy == query.policy, named], frozenset({"policy"}), False
        if query.action is not None or query.mode is not None:
            actions = [str(action) for action in Action] if query.action is None else [query.action]
            modes = [False, True] if query.mode is None else [query.mode == "monitored"]
            yield (
                [
                    and_(_TABLE.action == action, _TABLE.monitored == mode)
                    for action, mode in product(actions, modes)
                ],
                frozenset({"action", "mode"}),
                False,
            )
        elif query.policy is None:
            yield [true()], frozenset(), False


def _is_rare(connection: Connection, review: str | None) -> bool:
    """True if so few decisions are of that kind that their interventions can all be looked at."""
    if review is None or review == "open":
        return False
    decided = select(literal(1)).where(reviews.c.decision == review).limit(MAX_REVIEWS + 1).subquery()
    return connection.execute(select(func.count()).select_from(decided)).scalar_one() <= MAX_REVIEWS


def _conditions(query: Query) -> dict[str, Condition]:
    """What a row must fulfil, by what asks for it; databases do not choose an index by any of it."""
    found: dict[str, Condition] = {}
    for name, column in (("action", _TABLE.action), ("key", _TABLE.text_key)):
        if (value := getattr(query, name)) is not None:
            found[name] = _plain(column) == value
    if query.mode is not None:
        found["mode"] = func.coalesce(_TABLE.monitored, false()) == (query.mode == "monitored")
    if query.policy is not None:
        found["policy"] = or_(*(_plain(one) == query.policy for one in (_TABLE.policy, _TABLE.policy_name)))
    if query.label is not None:
        found["label"] = cast(_TABLE.scores[query.label].as_string(), Float) >= query.least
    if query.model is not None:
        models = (_TABLE.detector, _TABLE.lexicon, _TABLE.rewriter)
        found["model"] = or_(*(model.contains(query.model, autoescape=True) for model in models))
    if query.review is not None:
        decision = LAST_REVIEWS.c.decision
        found["review"] = decision.is_(None) if query.review == "open" else decision == query.review
    if query.text is not None:
        places = (_TABLE.before, _TABLE.after, LAST_REVIEWS.c.correction)
        within = (place.icontains(query.text, autoescape=True) for place in places)
        found["text"] = or_(_TABLE.hmac == fingerprint(query.text), *within)
    return found


def _plain(column: ColumnElement[str]) -> ColumnElement[str]:
    """The column, out of reach of its index: one range at a time is read, and its rows in their order."""
    return func.coalesce(column, "")


def _floor(connection: Connection, wanted: Look, below: Place | None) -> Place | None:
    """The oldest place to which no range is read beyond its share; None if all are read to their ends."""
    share = REACH // len(wanted.ranges)
    unread = replace(wanted, rest={}).selects(_TABLE.at, _TABLE.id, below=below)
    ends = (connection.execute(_newest_first(one).offset(share - 1).limit(1)).one_or_none() for one in unread)
    return max((Place(*end) for end in ends if end is not None), default=None)


def _newest_first(chosen: Select[Any]) -> Select[Any]:
    return chosen.order_by(_TABLE.at.desc(), _TABLE.id.desc())


def _constant(place: Place) -> ColumnElement[Any]:
    return tuple_(literal(place.at, _TABLE.at.type), literal(place.id))
