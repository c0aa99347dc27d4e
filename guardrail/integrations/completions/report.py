"""What was changed in the answer to one request, without text, for whoever wants it in the answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from guardrail.integrations.strict_json import JsonObject
from guardrail.outcome import Action, Outcome

__all__ = ["current_report", "note_outcome", "reported", "with_report"]

_outcomes: ContextVar[list[Outcome] | None] = ContextVar("guardrail_reported_outcomes", default=None)


@contextmanager
def reported() -> Iterator[None]:
    """Has outcomes noted for a report, in this task and the tasks that it starts."""
    token = _outcomes.set([])
    try:
        yield
    finally:
        _outcomes.reset(token)


def note_outcome(outcome: Outcome) -> None:
    """Takes note of one moderated text of the answer."""
    noted = _outcomes.get()
    if noted is not None:
        noted.append(outcome)


def current_report() -> JsonObject | None:
    """The report on what was noted so far; None outside of ``reported``.

    ``action`` is the strongest of all, ``counts`` says how many sentences each was taken for, ``labels`` for
    what, the likeliest label of each sentence once, ``failed_checks`` and ``degraded`` why. In monitor mode
    ``would`` is the strongest action that would be taken, and ``counts`` are of what would be done.
    """
    noted = _outcomes.get()
    if noted is None:
        return None
    edits = [edit for outcome in noted for edit in outcome.edits]
    actions = [str(edit.decided) for edit in edits]
    would = [outcome.would for outcome in noted if outcome.would is not None]
    labels = [max(edit.verdict.scores, key=edit.verdict.scores.__getitem__, default="") for edit in edits]
    return {
        "action": str(_strongest(outcome.action for outcome in noted)),
        **({"would": str(_strongest(would))} if would else {}),
        "counts": {action: actions.count(action) for action in dict.fromkeys(actions)},
        "labels": [label for label in dict.fromkeys(labels) if label],
        "failed_checks": [*dict.fromkeys(name for edit in edits for name in edit.failed_checks)],
        "degraded": [*dict.fromkeys(reason for outcome in noted for reason in outcome.degraded)],
    }


def with_report(answer: JsonObject) -> JsonObject:
    """The answer with the report on it; the answer itself outside of ``reported``."""
    report = current_report()
    return answer if report is None else answer | {"guardrail": report}


def _strongest(actions: Iterable[Action]) -> Action:
    return max(actions, key=lambda action: action.rank, default=Action.PASSED)
