"""An outcome in plain words, for people: what was done to a text, why, and what did not work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guardrail.outcome import Action
from guardrail.outcome.reasons import in_words

if TYPE_CHECKING:
    from guardrail.outcome import Edit, Outcome, Verdict

__all__ = ["done", "strongest", "summarised"]

DONE = {
    "rewritten": "rewritten",
    "lossy": "rewritten, and only its stance was kept",
    "masked": "its toxic words masked",
    "removed": "removed",
    "blocked": "blocked, with all that follows",
}
WOULD = {
    "rewritten": "would be given to the rewriter",
    "lossy": "would be given to the rewriter, to keep its stance alone",
    "masked": "would have its toxic words masked",
}
"""The same in monitor mode, for those that "would be" does not fit."""


def summarised(outcome: Outcome, *, include_text: bool) -> str:
    """One line for the text, one for each edit, one if it got no full pass."""
    return "\n".join(
        (_headline(outcome), *(_edit_line(edit, include_text=include_text) for edit in outcome.edits))
        + ((f"No full pass: {_listed(outcome.degraded)}.",) if outcome.degraded else ())
    )


def strongest(verdict: Verdict) -> str:
    """The label with the highest score, and the score; empty if there are no scores."""
    if not verdict.scores:
        return ""
    label, score = max(verdict.scores.items(), key=lambda pair: pair[1])
    return f"{label} {score:.2f}"


def _headline(outcome: Outcome) -> str:
    monitored = "" if outcome.would is None else "Monitor mode, nothing was changed. "
    if not outcome.edits:
        return f"{monitored}Nothing was flagged." if monitored else "Nothing was changed."
    decided = [str(edit.decided) for edit in outcome.edits]
    would = " would be" if monitored else ""
    counts = (f"{decided.count(action)}{would} {action}" for action in map(str, Action) if action in decided)
    flagged = len(decided)
    return f"{monitored}{flagged} flagged {'sentence' if flagged == 1 else 'sentences'}: {', '.join(counts)}."


def _edit_line(edit: Edit, *, include_text: bool) -> str:
    score = strongest(edit.verdict)
    line = f"- characters {edit.start}-{edit.end}{f' ({score})' if score else ''}: {done(edit)}"
    if include_text:
        line += f", {edit.before!r}" if edit.would else f", {edit.before!r} -> {edit.after!r}"
    if edit.failed_checks:
        line += f"; not accepted on the way: {_listed(edit.failed_checks)}"
    return f"{line}."


def done(edit: Edit) -> str:
    """What was done with a segment, or in monitor mode would be."""
    words = DONE[str(edit.decided)]
    return words if edit.would is None else WOULD.get(str(edit.would), f"would be {words}")


def _listed(reasons: tuple[str, ...]) -> str:
    return "; ".join(f"{in_words(reason)} ({reason})" for reason in reasons)
