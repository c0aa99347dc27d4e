"""Segments on their way: judged alone and together with earlier text; what a detector failure does.

With ``n = ceil(context / segment_min) + 1`` segments in reach, a character is judged at most ``2 + 2 n``
times, whatever the chunks. On average it is judged once alone and, after the first four contexts of a text,
at most 1.5 times more with earlier text (``Allowance``), however much of the text is in doubt: windows then
follow each other with an overlap, and a segment that has none of its own is read in the next one. Verifying
what is to take a toxic segment's place comes on top, which makes it at most ``2 (candidates + 2) (n + 1)``
times. A detector that fails is asked again, segment by segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from guardrail.engine.portions import portions
from guardrail.engine.steps import Detect, Steps
from guardrail.errors import REWRITER_MISSING, DeadlineError, PluginError
from guardrail.outcome import Action, Failure, Span, Verdict
from guardrail.outcome.explanation import Attempt
from guardrail.policy import Policy
from guardrail.text.boundaries import BRACKETS, DENSE_ENDS
from guardrail.text.masking import mask_whole
from guardrail.text.segment import Segment

__all__ = ["CLEAN", "Allowance", "Case", "Trace", "detect", "judge", "score_in_context", "tolerate"]

CLEAR_SHARE = 1 / 3
"""A score below this share of a policy's own limit is far from it."""
CLEAN = Verdict({}, False)


@dataclass(slots=True)
class Trace:
    """What later segments need to know of an earlier one.

    ``end`` is where it ends; ``clear`` and ``flagged`` are what the detector said of it alone; ``left_out``
    is true if it was in doubt and was not judged with earlier text all the same.
    """

    end: int
    clear: bool = False
    flagged: bool = False
    left_out: bool = False


@dataclass(slots=True)
class Allowance:
    """Characters that segments of one text may still be judged with earlier text for.

    ``start`` of them are there at first and at most kept; each segment brings ``RATE`` for each of its own.
    """

    RATE: ClassVar[float] = 0.5
    start: float
    left: float

    def earn(self, characters: int) -> None:
        """Adds what a segment of this length brings."""
        self.left = min(self.left, self.start) + self.RATE * characters

    def covers(self, characters: int) -> bool:
        """True if this many are left."""
        return characters <= self.left

    def spend(self, characters: int) -> None:
        """Takes them away, even if fewer are left."""
        self.left -= characters


@dataclass(slots=True)
class Case:
    """One segment on its way through the flow.

    ``context`` is the earlier text that it is judged with once more, ``earlier`` the traces of the segments
    in it, ``trace`` the segment's own. ``tried`` collects what was refused and why, ``degraded`` why the
    segment did not get a full pass, ``failures`` which plug-ins broke; ``detector_failed`` is true once its
    classifier failed. ``uses_context`` says whether it is judged with its context, once that is decided.
    ``attempts`` are the candidates that were tried, if somebody wants to know, else None.
    """

    segment: Segment
    context: str
    trace: Trace
    earlier: tuple[Trace, ...] = ()
    allowance: Allowance | None = None
    uses_context: bool | None = None
    verdict: Verdict = CLEAN
    flagged: bool = False
    detector_failed: bool = False
    action: Action = Action.PASSED
    after: str = ""
    verdict_after: Verdict = CLEAN
    similarity: float | None = None
    acceptable: float | None = None
    tried: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    attempts: list[Attempt] | None = field(default=None, repr=False)

    @property
    def body(self) -> str:
        """The characters that are judged."""
        core = self.segment.core
        return self.segment.text[core.start : core.end]

    @property
    def offset(self) -> int:
        """Where in the whole text the body begins."""
        return self.segment.start + self.segment.core.start

    @property
    def clear(self) -> bool:
        """True if neither the segment nor the text before it can be a part of something toxic."""
        return self.trace.clear and all(trace.clear for trace in self.earlier)

    @property
    def parts_word(self) -> bool:
        """True if a word may continue the text before it: no white space is there, and no full stop."""
        return bool(self.context) and not (
            self.context[-1].isspace() or self.context.rstrip(BRACKETS)[-1:] in tuple(DENSE_ENDS)
        )

    @property
    def known(self) -> str:
        """The part of the context of which it is known what it says together."""
        begin = start = self.offset - len(self.context)
        for trace in self.earlier:
            if trace.left_out:
                return self.context[: start - begin]
            start = max(trace.end, begin)
        return self.context

    def forget_flagged(self) -> None:
        """Leaves out of the context a flagged segment and what is before it: no reader sees it as it was.

        A word that continues from there is still read as a whole.
        """
        flagged = [i for i, trace in enumerate(self.earlier) if trace.flagged]
        if flagged and not self.parts_word:
            left = self.offset - self.earlier[flagged[-1]].end
            self.context = self.context[-left:].lstrip() if left else ""
            self.earlier = self.earlier[flagged[-1] + 1 :] if self.context else ()

    @property
    def verdict_in_text(self) -> Verdict:
        """The verdict with its spans measured from the beginning of the whole text."""
        if not self.verdict.spans:
            return self.verdict
        return replace(self.verdict, spans=tuple(span.shifted(self.offset) for span in self.verdict.spans))

    @property
    def settled(self) -> bool:
        """True once a rung of the ladder held."""
        return self.action is not Action.PASSED

    def refuse(self, reason: str) -> None:
        """Notes why something was not done."""
        if reason not in self.tried:
            self.tried += (reason,)

    def degrade(self, reason: str) -> None:
        """Notes why this is less than a full pass."""
        if reason not in self.degraded:
            self.degraded += (reason,)

    def fail(self, error: PluginError) -> None:
        """Notes which plug-in broke."""
        if error.failure is not None and error.failure not in self.failures:
            self.failures += (error.failure,)

    def settle(
        self,
        action: Action,
        after: str,
        verdict_after: Verdict,
        *,
        similarity: float | None = None,
        acceptable: float | None = None,
    ) -> None:
        """Fixes what becomes of the segment."""
        self.action, self.after, self.verdict_after = action, after, verdict_after
        self.similarity, self.acceptable = similarity, acceptable


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
    """Raises the error if the policy wants to see it; a missing rewriter is not a bug."""
    if policy.on_error == "raise" and policy.enforce and error.reason != REWRITER_MISSING:
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


def score_in_context(
    policy: Policy, cases: Sequence[Case], bodies: Sequence[str]
) -> Steps[list[Verdict | None]]:
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
        if case.uses_context is None:
            case.uses_context = _joins(policy, case)
    doubtful = [case for case in cases if case.uses_context]
    if not doubtful:
        return
    bodies = [_continuation(policy, case) for case in doubtful]
    in_context = yield from score_in_context(policy, doubtful, bodies)
    for case, joint in zip(doubtful, in_context, strict=True):
        if joint is not None:
            case.verdict, case.flagged = joint, True


def _joins(policy: Policy, case: Case) -> bool:
    """True if a segment is to be judged with its context; its text's allowance is charged for that.

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
    """True if the detector is sure of it, and the policy's own limits are as far away."""
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
        case.detector_failed = True
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
