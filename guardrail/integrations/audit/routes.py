"""The audit page and the paths that it asks, for a server to mount; every one but the page needs a key."""

from __future__ import annotations

from dataclasses import asdict
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
from guardrail.integrations.audit import review
from guardrail.integrations.web.auth import AUDIT_KEYS, Reviewers
from guardrail.integrations.web.errors import ApiError, JsonReply
from guardrail.integrations.web.pages import add_files

__all__ = ["audit_routes"]

FOLDER = Path(__file__).parent / "page"
FILES = {
    "/audit": FOLDER / "index.html",
    "/audit/audit.css": FOLDER / "audit.css",
    "/audit/audit.js": FOLDER / "audit.js",
}
Word = Annotated[str | None, Parameter(max_length=300)]
State = Literal["open", "accepted", "corrected"]
Moment = Annotated[datetime | None, Parameter()]
Number = Annotated[int | None, Parameter(ge=0, lt=2**63)]


class Decided(BaseModel):
    """What a reviewer decided; ``confirmed`` names the checks that refuse the correction all the same."""

    model_config = ConfigDict(extra="forbid")
    decision: Literal["accepted", "corrected"]
    correction: str | None = None
    confirmed: Annotated[list[str], Field(max_length=100)] = []


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
            raise ApiError(f"no valid audit key: {advice}", status=401, code="invalid_api_key")
        return name

    @router.get("/audit/interventions", dependencies=[Depends(reviewer)])
    def interventions(
        action: Word = None,
        label: Word = None,
        least: Annotated[float, Parameter(ge=0, le=1)] = 0.5,
        since: Moment = None,
        until: Moment = None,
        policy: Word = None,
        model: Word = None,
        key: Word = None,
        state: Annotated[State | None, Parameter(alias="review")] = None,
        before: Number = None,
        limit: int = 50,
    ) -> Response:
        """A page of records, newest first."""
        try:
            query = review.Query(
                action=action,
                label=label,
                least=least,
                since=_in_utc(since),
                until=_in_utc(until),
                policy=policy,
                model=model,
                key=key,
                review=state,
                before=before,
                limit=limit,
            )
        except UsageError as error:
            raise ApiError(str(error), status=400) from None
        page = review.page(database, query)
        return JsonReply({"records": [_shown(one) for one in page.records], "next": page.next})

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
            refused.body["error"]["failed_checks"] = list(error.failed_checks)
            raise refused from None
        except UsageError as error:
            raise ApiError(str(error), status=409) from None
        return JsonReply(_shown(record))

    return router


def _in_utc(moment: datetime | None) -> datetime | None:
    """The moment with a zone; one without is meant in UTC."""
    return moment.replace(tzinfo=timezone.utc) if moment and moment.tzinfo is None else moment


def _shown(record: review.Record) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(record).items()
    }
