"""What an audit is told: one record per intervention, written before its text is returned."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Protocol

from guardrail.outcome import Action, Edit, Outcome, Verdict

__all__ = ["AuditLog", "Intervention", "Origin", "TextTrail", "Trail"]

logger = logging.getLogger("guardrail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What decided: the policy's digest and name, and each model's name, version and manifest's sha256.

    A model without a manifest is named by its attribute ``identity``, if it has one, else by its type; the
    shipped word list by its own sha256.
    """

    policy: str
    policy_name: str = ""
    detector: str
    lexicon: str
    rewriter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervention:
    """One segment that was not let through as it was, or one text that did not get a full pass.

    ``key`` names the text that it belongs to; key and ``start`` together name the intervention. An edit has
    its characters ``start`` to ``end`` of the original. A degraded text is one more intervention, with
    ``degraded`` and no characters: ``after`` is then the whole text as it was returned. ``monitored`` is true
    if nothing was done, as in monitor mode: ``action`` is then what an enforcing policy would do.
    """

    key: str
    at: datetime
    action: Action
    verdict: Verdict
    verdict_after: Verdict | None
    start: int | None = None
    end: int | None = None
    before: str | None = field(default=None, repr=False)
    after: str = field(repr=False)
    similarity: float | None = None
    acceptable: float | None = None
    failed_checks: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    monitored: bool = False
    origin: Origin


class AuditLog(Protocol):
    """Where interventions are kept."""

    def record(self, interventions: Sequence[Intervention], /) -> object:
        """Returns once they are kept for good; what it raises reaches the caller in place of the text.

        An intervention whose key and ``start`` are there already is left as it is.
        """
        ...


class Trail:
    """Tells an audit log what one guard did. Safe to share between threads; it blocks as the log does.

    Unless a guard ``must_record``, what the log raises is logged: in monitor mode no text waits for it.
    """

    def __init__(self, log: AuditLog, origin: Callable[[], Origin], *, must_record: bool = True) -> None:
        self.log = log
        self._origin = origin
        self._must_record = must_record

    def record(self, outcomes: Sequence[Outcome], *, keys: Sequence[str] | None = None) -> None:
        """Records whole texts; ``keys`` name them, one each, in place of new random names."""
        named = zip(keys or [new_key() for _ in outcomes], outcomes, strict=True)
        found = [one for key, outcome in named for one in self._interventions(key, outcome)]
        if found:
            self._record(found)

    def record_edit(self, edit: Edit, *, key: str) -> None:
        """Records one segment of a text that is still being read."""
        self._record([self._edited(key, edit)])

    def _record(self, found: Sequence[Intervention]) -> None:
        try:
            self.log.record(found)
        except Exception as error:
            if self._must_record:
                raise
            logger.error("%d interventions were not recorded: %s", len(found), type(error).__name__)

    def _interventions(self, key: str, outcome: Outcome) -> list[Intervention]:
        found = [self._edited(key, edit) for edit in outcome.edits]
        if outcome.degraded:
            found.append(
                Intervention(
                    key=key,
                    at=now(),
                    action=outcome.decided,
                    verdict=outcome.verdict,
                    verdict_after=outcome.verdict_after,
                    after=outcome.text,
                    degraded=outcome.degraded,
                    monitored=not self._must_record,
                    origin=self._origin(),
                )
            )
        return found

    def _edited(self, key: str, edit: Edit) -> Intervention:
        return Intervention(
            key=key,
            at=now(),
            action=edit.decided,
            verdict=edit.verdict,
            verdict_after=edit.verdict_after,
            start=edit.start,
            end=edit.end,
            before=edit.before,
            after=edit.after,
            similarity=edit.similarity,
            acceptable=edit.acceptable,
            failed_checks=edit.failed_checks,
            monitored=edit.would is not None,
            origin=self._origin(),
        )


class TextTrail:
    """Tells an audit log of one text: of each edit before its text is shown, of the rest at the end."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._key = new_key()
        self._told = 0

    def edited(self, edit: Edit) -> None:
        """Records an edit; they come in the order of the text."""
        self._trail.record_edit(edit, key=self._key)
        self._told += 1

    def ended(self, outcome: Outcome) -> None:
        """Records what of the outcome is not recorded yet."""
        self._trail.record([replace(outcome, edits=outcome.edits[self._told :])], keys=[self._key])


def new_key() -> str:
    """A name for a text that no other text has: 32 hex digits."""
    return secrets.token_hex(16)


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(timezone.utc)
