"""Judges segments alone and jointly with earlier text, and decides what a detector failure does.

With ``n = ceil(context / segment_min) + 1`` segments in reach, a character is judged at most ``2 + 2 n``
times, whatever the chunks. On average it is judged once alone and, after the first four contexts of a text,
at most 1.5 times more with earlier text (``Allowance``), however much of the text is in doubt: windows then
follow each other with an overlap, and a segment that has none of its own is read in the next one. Verifying
what is to take a toxic segment's place comes on top, which makes it at most ``2 (candidates + 2) (n + 1)``
times. A detector that fails is asked again, segment by segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from guardrail.engine.portions import portions
from guardrail.engine.record import CLEAN, Case
from guardrail.engine.steps import Detect, Steps
from guardrail.errors import REWRITER_MISSING, DeadlineError, PluginError
from guardrail.outcome import Action, Span, Verdict
from guardrail.policy import Policy
from guardrail.rewriters.mask import mask_whole

__all__ = ["detect", "jointly", "judge", "tolerate"]


CLEAR_SHARE = 1 / 3
"""A score below this share of a policy's own limit is far from it."""


def judge(policy: Policy, cases: Sequence[Case]) -> Steps[None]:
    """Fills in each case's verdict and whether it is flagged."""
    unread = [case for case in cases if case.body]
    try:
        yield from _score(policy, unread)
    except PluginError as error:
        tolerate(policy, error)
        if len(unread) == 1 or isinstance(error, DeadlineError):
            yield from _fail(policy, unread, error)
        else:  # one text that breaks the detector must not decide for its companions
            for case in unread:
                yield from judge(policy, [case])


def tolerate(policy: Policy, error: PluginError) -> None:
    """Raises the error where the policy wants to see it; that a rewriter is not there is no bug of anyone."""
    if policy.on_error == "raise" and error.reason != REWRITER_MISSING:
        raise error


def detect(policy: Policy, texts: Sequence[str], *, lexicon: bool = False) -> Steps[list[Verdict]]:
    """Verdicts whose ``flagged`` is the policy's decision; nothing is asked for no texts."""
    if not texts:
        return []
    verdicts: list[Verdict] = []
    for portion in [texts] if len(texts) == 1 else portions(texts, batch=policy.batch):
        verdicts += yield Detect(tuple(portion), lexicon)
    if lexicon:
        return verdicts
    return [policy.decided(verdict) for verdict in verdicts]


def jointly(policy: Policy, cases: Sequence[Case], bodies: Sequence[str]) -> Steps[list[Verdict | None]]:
    """The verdict of each case's context followed by a body, if the body is what made it toxic; else None."""
    asked = [i for i, case in enumerate(cases) if case.context]
    joint = yield from detect(policy, [cases[i].context + bodies[i] for i in asked])
    suspects = {i: verdict for i, verdict in zip(asked, joint, strict=True) if verdict.flagged}
    known = {i: text for i in suspects if (text := cases[i].known).strip()}
    earlier = yield from detect(policy, list(known.values()))
    were_toxic = {i for i, before in zip(known, earlier, strict=True) if before.flagged}
    found: list[Verdict | None] = [None] * len(cases)
    for i, verdict in suspects.items():
        if i not in were_toxic:
            found[i] = replace(verdict, spans=_after(verdict.spans, len(cases[i].context)))
    return found


def _score(policy: Policy, cases: Sequence[Case]) -> Steps[None]:
    verdicts = yield from detect(policy, [case.body for case in cases])
    for case, verdict in zip(cases, verdicts, strict=True):
        case.verdict, case.flagged = verdict, verdict.flagged
        case.trace.clear, case.trace.flagged = _is_clear(policy, verdict), verdict.flagged
        if verdict.unsupported:
            case.degrade("unsupported_text")
            _settle_unread(policy, case)
    for case in cases:
        if case.in_context is None:
            case.in_context = _joins(policy, case)
    doubtful = [case for case in cases if case.in_context]
    if not doubtful:
        return
    bodies = [_continuation(policy, case) for case in doubtful]
    guilty = yield from jointly(policy, doubtful, bodies)
    for case, joint in zip(doubtful, guilty, strict=True):
        if joint is not None:
            case.verdict, case.flagged = joint, True


def _joins(policy: Policy, case: Case) -> bool:
    """True where a segment is to be judged with its context; its text's allowance is charged for that.

    Where nothing is left, the context of the next one that is judged with it takes the segment in.
    """
    if case.allowance is None:
        return False
    case.allowance.earn(len(case.body))
    if not case.context:
        return False
    case.forget_flagged()
    if case.flagged:
        if case.context:  # what takes its place will be judged alone and with it
            case.allowance.spend(len(case.context) + 2 * len(case.body))
        return False
    if case.settled or not case.context or (case.clear and not case.parts_word):
        return False
    cost = len(case.context) + len(_continuation(policy, case))
    case.trace.left_out = not (case.parts_word or case.allowance.covers(cost))
    if not case.trace.left_out:
        case.allowance.spend(cost)
    return not case.trace.left_out


def _continuation(policy: Policy, case: Case) -> str:
    """What of a segment is judged behind its context.

    Where all is clear but a word was cut in two, the words around the cut are enough.
    """
    return case.body[: policy.context] if case.clear else case.body


def _settle_unread(policy: Policy, case: Case) -> None:
    """What the policy does with a segment that nobody could read; it is never rewritten then."""
    if policy.unsupported == "pass":
        return
    case.refuse("unsupported_text")
    may_mask = not case.flagged or "mask" in policy.ladder
    case.flagged = False
    if policy.unsupported == "mask" and may_mask:
        case.settle(Action.MASKED, mask_whole(case.body, template=policy.mask), CLEAN)
    else:
        case.settle(Action.BLOCKED, "", CLEAN)


def _is_clear(policy: Policy, verdict: Verdict) -> bool:
    """True where the detector is sure of it, and the policy's own limits are as far away."""
    if not verdict.clear:
        return False
    limits = (
        (policy.thresholds.get(label, policy.threshold), score) for label, score in verdict.scores.items()
    )
    return all(limit is None or score < CLEAR_SHARE * limit for limit, score in limits)


def _fail(policy: Policy, cases: Sequence[Case], error: PluginError) -> Steps[None]:
    """The error policy, for the cases that no verdict flagged before the failure."""
    unread = [case for case in cases if not case.flagged]
    verdicts = [CLEAN] * len(unread)
    failed = [error]
    closed = policy.on_error == "closed"
    if policy.on_error == "lexicon":
        try:
            verdicts = yield from detect(policy, [case.body for case in unread], lexicon=True)
        except PluginError as second:
            failed, closed = [error, second], True
    for case, verdict in zip(unread, verdicts, strict=True):
        case.blind = True
        case.degrade(failed[-1].reason)
        for one in failed:
            case.fail(one)
        case.verdict, case.flagged = verdict, verdict.flagged
        if closed:
            case.refuse(failed[-1].reason)
            case.settle(Action.BLOCKED, "", CLEAN)


def _after(spans: Sequence[Span], offset: int) -> tuple[Span, ...]:
    """The parts of spans that lie behind an offset, measured from it."""
    return tuple(Span(max(span.start - offset, 0), span.end - offset) for span in spans if span.end > offset)
