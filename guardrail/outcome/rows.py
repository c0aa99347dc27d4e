"""Verdicts and outcomes as JSON objects, for files and terminals that were asked to hold text."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardrail.outcome import Edit, Outcome, Verdict

__all__ = ["outcome_row", "verdict_row"]


def verdict_row(verdict: Verdict) -> dict[str, Any]:
    """``scores`` per label in 0..1, ``flagged``, ``spans`` as ``[start, end)`` pairs, ``unsupported``."""
    return {
        "scores": {label: round(float(score), 6) for label, score in verdict.scores.items()},
        "flagged": verdict.flagged,
        "spans": [[span.start, span.end] for span in verdict.spans],
        "unsupported": verdict.unsupported,
    }


def outcome_row(outcome: Outcome, *, include_text: bool) -> dict[str, Any]:
    """The whole outcome, as ``schema.json`` describes it; timings in milliseconds."""
    timings = outcome.timings
    text = {"text": outcome.text} if include_text else {}
    return {
        "action": str(outcome.action),
        "would": None if outcome.would is None else str(outcome.would),
        **text,
        "counts": dict(outcome.counts),
        "degraded": list(outcome.degraded),
        "failures": [asdict(failure) for failure in outcome.failures],
        "verdict": verdict_row(outcome.verdict),
        "verdict_after": verdict_row(outcome.verdict_after),
        "edits": [_edit_row(edit, include_text=include_text) for edit in outcome.edits],
        "milliseconds": {
            name: round(1000 * getattr(timings, name), 3)
            for name in ("detect", "rewrite", "embed", "verify", "total")
        },
    }


def _edit_row(edit: Edit, *, include_text: bool) -> dict[str, Any]:
    texts = {"before": edit.before, "after": edit.after} if include_text else {}
    return {
        "start": edit.start,
        "end": edit.end,
        "action": str(edit.action),
        "would": None if edit.would is None else str(edit.would),
        **texts,
        "similarity": None if edit.similarity is None else round(float(edit.similarity), 6),
        "acceptable": None if edit.acceptable is None else round(float(edit.acceptable), 6),
        "failed_checks": list(edit.failed_checks),
        "verdict": verdict_row(edit.verdict),
        "verdict_after": None if edit.verdict_after is None else verdict_row(edit.verdict_after),
    }
