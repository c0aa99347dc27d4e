"""The audit page and the paths that it asks, for a server to mount; every one but the page needs a key."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header
from fastapi import Query as Parameter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from guardrail.audit.database import Database
from guardrail.errors import UsageError
from guardrail.guard import Guard
from guardrail.integrations.audit import records, review
from guardrail.integrations.audit.records import LONGEST_PAGE, Query, Record
from guardrail.integrations.web.auth import AUDIT_KEYS, Reviewers
from guardrail.integrations.web.errors import ApiError, JsonReply
from guardrail.integrations.web.pages import add_files
from guardrail.outcome.reasons import in_words

__all__ = ["audit_routes"]

FOLDER = Path(__file__).parent / "page"
FILES = {
    "/audit": FOLDER / "index.html",
    "/audit/audit.css": FOLDER / "audit.css",
    "/audit/audit.js": FOLDER / "audit.js",
    "/audit/trend.js": FOLDER / "trend.js",
}
Word = Annotated[str | None, Parameter(max_length=300)]
State = Literal["open", "accepted", "corrected", "rejected"]
Mode = Literal["enforced", "monitored"]
Moment = Annotated[datetime | None, Parameter()]
LONGEST_SEARCH = 1000
Number = Annotated[int | None, Parameter(ge=0, lt=2**63)]


class Decided(BaseModel):
    """What a reviewer decided; ``confirmed`` names the checks that refuse the correction all the same."""

    model_config = ConfigDict(extra="forbid")
    decision: review.Decision
    correction: str | None = None
    confirmed: Annotated[list[str], Field(max_length=100)] = []


class Search(BaseModel):
    """A part of a text, a whole segment, or ``#`` and a number."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)
    text: Annotated[str, Field(max_length=LONGEST_SEARCH)] = ""


NOTHING = Search()


class Chosen(BaseModel):
    """Interventions that a reviewer accepts together."""

    model_config = ConfigDict(extra="forbid")
    numbers: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1, max_length=LONGEST_PAGE)
    ]


def asked(
    *,
    action: Word = None,
    label: Word = None,
    least: Annotated[float, Parameter(ge=0, le=1)] = 0.5,
    since: Moment = None,
    until: Moment = None,
    policy: Word = None,
    model: Word = None,
    key: Word = None,
    mode: Mode | None = None,
    state: Annotated[State | None, Parameter(alias="review")] = None,
    before: Number = None,
    limit: int = 50,
) -> Query:
    """The query in an address; ApiError for one that cannot be."""
    try:
        return Query(
            action=action,
            label=label,
            least=least,
            since=_in_utc(since),
            until=_in_utc(until),
            policy=policy,
            model=model,
            key=key,
            mode=mode,
            review=state,
            before=before,
            limit=limit,
        )
    except UsageError as error:
        raise ApiError(str(error), status=400) from None


Asked = Annotated[Query, Depends(asked)]


def audit_routes(database: Database, reviewers: Reviewers, *, guard: Guard | None = None) -> APIRouter:
    """Routes under ``/audit``, to be given to ``create_app``, whose headers and errors they rely on.

    ``guard``, or the default guard, checks corrections as it checks rewrites.

    They are plain functions, which FastAPI runs in threads: a slow database holds up nobody else.
    """
    router = APIRouter()
    add_files(router, FILES)

    def reviewer(authorization: Annotated[str | None, Header()] = None) -> str:
        name = reviewers.admit(authorization)
        if name is None:
            advice = "show one as Authorization: Bearer KEY" if reviewers.keys else f"{AUDIT_KEYS} is not set"
            code = "invalid_api_key" if reviewers.keys else "no_audit_keys"
            raise ApiError(f"no valid audit key: {advice}", status=401, code=code)
        return name

    @router.get("/audit/me")
    def me(name: str = Depends(reviewer)) -> Response:
        """Whose key it is."""
        return JsonReply({"reviewer": name})

    # A search is sent in a body: addresses are logged on the way, texts are not to be.
    @router.get("/audit/interventions", dependencies=[Depends(reviewer)])
    @router.post("/audit/interventions", dependencies=[Depends(reviewer)])
    def listed(query: Asked, search: Search = NOTHING) -> Response:
        """A page of records, newest first, and how many there are; more than that if not ``exact``."""
        page = records.page(database, replace(query, text=search.text or None))
        shown = [_shown(one) for one in page.records]
        return JsonReply({"records": shown, "next": page.next, "total": page.total, "exact": page.exact})

    @router.get("/audit/days", dependencies=[Depends(reviewer)])
    @router.post("/audit/days", dependencies=[Depends(reviewer)])
    def by_day(query: Asked, search: Search = NOTHING) -> Response:
        """How many records each of the last thirty days has, by action."""
        found = records.days(database, replace(query, text=search.text or None))
        return JsonReply({"days": [{"day": one.day.isoformat(), "counts": one.counts} for one in found]})

    @router.post("/audit/decisions")
    def accept(chosen: Chosen, name: str = Depends(reviewer)) -> Response:
        """The records of a page that are accepted now, and why others are not."""
        done = review.accept_all(database, chosen.numbers, reviewer=name)
        return JsonReply(
            {
                "records": [_shown(one) for one in done.records],
                "refused": [{"id": number, "message": why} for number, why in done.refused.items()],
            }
        )

    @router.post("/audit/interventions/{number}/decision")
    def decide(number: int, decided: Decided, name: str = Depends(reviewer)) -> Response:
        """The record with the new decision on it."""
        try:
            record = review.decide(
                database,
                number,
                decided.decision,
                reviewer=name,
                guard=guard,
                correction=decided.correction,
                confirmed=decided.confirmed,
            )
        except review.RefusedCorrectionError as error:
            refused = ApiError(str(error), status=409, code="checks_failed", param="correction")
            words = {name: in_words(name) for name in error.failed_checks}
            refused.body["error"] |= {"failed_checks": list(words), "words": words}
            raise refused from None
        except UsageError as error:
            raise ApiError(str(error), status=409) from None
        return JsonReply(_shown(record))

    return router


def _in_utc(moment: datetime | None) -> datetime | None:
    """The moment with a zone; one without is meant in UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment and moment.tzinfo is None else moment


def _shown(record: Record) -> dict[str, Any]:
    """A record as JSON, with its reasons in plain words next to their names."""
    row = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(record).items()
    }
    reasons = dict.fromkeys((*record.failed_checks, *record.degraded, *(record.confirmed or ())))
    return row | {"words": {name: in_words(name) for name in reasons}}
