"""Keeps interventions in a database: committed before their text is returned, never changed afterwards."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from guardrail.audit.database import Database
from guardrail.audit.schema import insert_once
from guardrail.audit.trail import Intervention
from guardrail.errors import AuditError, WithoutFrames
from guardrail.events import fingerprint

__all__ = ["AuditStore"]

logger = logging.getLogger("guardrail")


class AuditStore:
    """An audit in a database. Safe to share between threads and, as a database is, between processes.

    A record is on disk when ``record`` returns: SQLite runs with a write-ahead log and ``synchronous=FULL``,
    PostgreSQL as its server is set up (``synchronous_commit``, on by default). Texts keep everything but NUL
    and half surrogate pairs, which become U+FFFD; the HMAC is of the exact text, and comparable between
    processes if ``GUARDRAIL_HMAC_KEY`` is set.

    Args:
        where: An SQLite file (``audit.db`` or ``sqlite:///audit.db``) or a PostgreSQL URL; tables are made.
        include_text: Keep the texts before and after too; without it nothing but HMACs, scores and offsets.
        on_error: "closed": what cannot be recorded is raised as AuditError, so that its text is not returned;
            "open": it is logged, and the text returned.

    Raises:
        AuditError: If the database cannot be opened.
    """

    def __init__(
        self,
        where: str | Path,
        *,
        include_text: bool = False,
        on_error: Literal["closed", "open"] = "closed",
    ) -> None:
        self.include_text = include_text
        self.database: Database = Database(where)
        self._on_error = on_error
        try:
            self.database.prepare()
        except AuditError as error:
            self._give_up(error, unrecorded=0)

    def record(self, found: Sequence[Intervention], /) -> None:
        """Returns once every intervention is on disk; one that is there already stays as it is."""
        rows = [self._row(one) for one in found]
        try:
            with self.database.transaction(write=True) as connection:
                connection.execute(insert_once(connection), rows)
        except AuditError as error:
            self._give_up(error, unrecorded=len(found))
        finally:
            del rows, found

    def close(self) -> None:
        """Closes the connections; a later call opens new ones."""
        self.database.close()

    def _give_up(self, error: AuditError, *, unrecorded: int) -> None:
        if self._on_error == "closed":
            with WithoutFrames(AuditError):
                raise error
        logger.error("%d interventions were not recorded: %s", unrecorded, error)

    def _row(self, one: Intervention) -> dict[str, Any]:
        after = one.verdict_after
        return {
            "at": one.at,
            "text_key": one.key,
            "kind": "degraded" if one.start is None else "edit",
            "start": one.start or 0,
            "end": len(one.after) if one.end is None else one.end,
            "hmac": fingerprint(one.after if one.before is None else one.before),
            "action": str(one.action),
            "scores": _rounded(one.verdict.scores),
            "scores_after": None if after is None else _rounded(after.scores),
            "similarity": one.similarity,
            "acceptable": one.acceptable,
            "failed_checks": list(one.failed_checks),
            "degraded": list(one.degraded),
            "monitored": one.monitored,
            "policy": one.origin.policy,
            "policy_name": one.origin.policy_name,
            "detector": one.origin.detector,
            "lexicon": one.origin.lexicon,
            "rewriter": one.origin.rewriter,
            "before": one.before if self.include_text else None,
            "after": one.after if self.include_text else None,
        }

    def __repr__(self) -> str:
        return f"AuditStore({self.database.where!r}, include_text={self.include_text})"


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {label: round(float(score), 6) for label, score in scores.items()}
