"""The segments of a text with the scores that each has alone, for people who want to see why."""

from __future__ import annotations

from typing import Any

from guardrail.guard import Guard
from guardrail.outcome import Outcome
from guardrail.outcome.rows import verdict_row
from guardrail.text.segment import Segmenter

__all__ = ["sentence_rows"]


def sentence_rows(guard: Guard, text: str, outcome: Outcome) -> list[dict[str, Any]]:
    """``start`` and ``end`` (offsets into the text), ``scores`` and ``flagged`` of every segment.

    Scores are of the segment alone; those of a segment that was edited are the ones that it was edited for.
    """
    policy = guard.policy
    segmenter = Segmenter(segment_min=policy.segment_min, segment_max=policy.segment_max)
    segments = [s for s in (*segmenter.feed(text), *segmenter.close()) if s.body]
    verdicts = guard.detect([segment.body for segment in segments])
    edits = {edit.start: edit for edit in outcome.edits}
    rows = []
    for segment, verdict in zip(segments, verdicts, strict=True):
        core = segment.core.shifted(segment.start)
        edit = edits.get(core.start)
        row = verdict_row(verdict if edit is None else edit.verdict)
        flagged = edit is not None or verdict.flagged
        rows.append({"start": core.start, "end": core.end, "scores": row["scores"], "flagged": flagged})
    return rows
