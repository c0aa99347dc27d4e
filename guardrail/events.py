"""What the outside may hear: a hook gets every outcome, a log gets outcomes without text."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
from functools import cache
from typing import Protocol

from guardrail.outcome import Outcome

__all__ = ["OutcomeHook", "fingerprint", "log_outcome"]

logger = logging.getLogger("guardrail")
logger.addHandler(logging.NullHandler())


class OutcomeHook(Protocol):
    """Called with every outcome before its text is returned. What it raises reaches the caller.

    For a stream it is called once, when the stream has ended, early or not.
    """

    def __call__(self, outcome: Outcome, /) -> object: ...


@cache
def _key() -> bytes:
    configured = os.environ.get("GUARDRAIL_HMAC_KEY")
    return configured.encode() if configured else secrets.token_bytes(32)


def fingerprint(text: str) -> str:
    """32 hex digits that are equal for equal texts and say nothing else about them.

    An HMAC-SHA256 under ``GUARDRAIL_HMAC_KEY``; without that variable under a key that dies with the process.
    """
    return hmac.new(_key(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:32]


def log_outcome(outcome: Outcome) -> None:
    """Logs action, scores and lengths at INFO if something was flagged or degraded, else at DEBUG."""
    level = logging.INFO if outcome.edits or outcome.degraded else logging.DEBUG
    if not logger.isEnabledFor(level):
        return
    edits = [
        {
            "hmac": fingerprint(edit.before),
            "start": edit.start,
            "end": edit.end,
            "action": edit.action.value,
            **({} if edit.would is None else {"would": edit.would.value}),
            "failed_checks": edit.failed_checks,
        }
        for edit in outcome.edits
    ]
    scores = {label: round(score, 3) for label, score in outcome.verdict.scores.items()}
    logger.log(
        level,
        "action=%s%s length=%d degraded=%s scores=%s edits=%s seconds=%.4f",
        outcome.action,
        "" if outcome.would is None else f" would={outcome.would}",
        len(outcome.text),
        list(outcome.degraded),
        scores,
        edits,
        outcome.timings.total,
    )
