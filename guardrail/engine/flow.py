"""The one flow: read, detect, rewrite, verify, release; and the record of what it did.

``moderate`` is a generator. It yields steps, is sent the replies, and returns an Outcome; a plug-in's failure
is thrown into it. It has no I/O, no clock and no model, so it can be driven by hand:

    flow = moderate(Policy())
    next(flow)                                  # Read()
    flow.send("What a lovely day it is today.") # Read(): nothing confirms yet that the sentence is over
    flow.send(None)                             # Detect(texts=("What a lovely day it is today.",))

Segments are judged in groups, but what becomes of one depends on itself and on earlier text only: a group of
one gives the same outcome as a group of many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from guardrail.engine.scoring import Allowance, Case, Trace, judge
from guardrail.engine.steps import PAUSE, Flow, Read, Release, Steps, UnfinishedError
from guardrail.outcome import Action, Edit, Failure, FrozenDict, Outcome, Verdict
from guardrail.outcome.explanation import Sentence
from guardrail.policy import Policy
from guardrail.text.segment import Segment, Segmenter

__all__ = ["moderate"]

STRIDE = 8192
"""Characters cut into segments at a time: a driver may do something else after each stride."""
SPARE = 4
"""Contexts that segments of one text may be judged with before it has brought any allowance."""
MIN_CONTEXT = 20
"""Characters that a context counts as there: a shorter one must pay for the segment behind it, too."""


def moderate(policy: Policy, *, on_sentence: Callable[[Sentence], object] | None = None) -> Flow:
    """A flow that moderates one text under a policy and returns its Outcome.

    ``on_sentence`` is called with every sentence and all that was tried for it; by default no candidate is
    kept.
    """
    record = FlowRecord(policy, on_sentence=on_sentence)
    try:
        yield from _read(policy, record)
    except UnfinishedError:
        record.degrade("unfinished")
    return record.outcome()


def _read(policy: Policy, record: FlowRecord) -> Steps[None]:
    segmenter = Segmenter(segment_min=policy.segment_min, segment_max=policy.segment_max)
    while (chunk := (yield Read())) is not None:
        if chunk is PAUSE:
            if (yield from _settle(policy, segmenter.close(), record)):
                return
            continue
        for start in range(0, len(chunk), STRIDE):
            segments = segmenter.feed(chunk[start : start + STRIDE])
            if (yield from _settle(policy, segments, record)):
                return
    yield from _settle(policy, segmenter.close(), record)


def _settle(policy: Policy, segments: Sequence[Segment], record: FlowRecord) -> Steps[bool]:
    """Judges, rewrites and releases segments; True if nothing may follow."""
    group = max(1, policy.batch // 2)  # a segment is scored alone and with its context
    for start in range(0, len(segments), group):
        cases = record.open(segments[start : start + group])
        yield from judge(policy, cases)
        flagged = [case for case in cases if case.flagged]
        # What stands before a flagged segment need not wait for its rewrite.
        ready = cases[: cases.index(flagged[0])] if flagged else cases
        if (yield from _release(ready, record)):
            return True
        if flagged:
            from guardrail.engine.ladder import resolve_flagged  # clean text needs none of it

            record.rewrites_left = yield from resolve_flagged(
                policy, flagged, max_rewrites=record.rewrites_left
            )
            if (yield from _release(cases[len(ready) :], record)):
                return True
    return False


def _release(cases: Sequence[Case], record: FlowRecord) -> Steps[bool]:
    for case in cases:
        release = record.release(case)
        if release.text:
            yield release  # if the flow ends here, nobody has seen it
        record.close(case, release)
        if case.action is Action.BLOCKED and record.policy.enforce:
            return True
    return False


class FlowRecord:
    """One text's cases in order, its released pieces, and in the end its outcome.

    ``on_sentence`` is called with every sentence once it was released, and all that was tried; None keeps
    nothing.
    """

    def __init__(self, policy: Policy, *, on_sentence: Callable[[Sentence], object] | None = None) -> None:
        self.policy = policy
        self._on_sentence = on_sentence
        self.rewrites_left = policy.max_rewrites
        self._tail = ""
        self._traces: tuple[Trace, ...] = ()
        self._released: list[str] = []
        self._edits: list[Edit] = []
        self._degraded: dict[str, None] = {}
        self._failures: dict[Failure, None] = {}
        spare = SPARE * max(policy.context, MIN_CONTEXT)
        self._allowance = Allowance(spare, spare)
        self._before: list[Verdict] = []
        self._after: list[Verdict] = []

    def open(self, segments: Sequence[Segment]) -> list[Case]:
        """Cases for the next segments."""
        cases = []
        for segment in segments:
            earlier = self._tail + segment.text[: segment.core.start]
            context = _context(earlier, self.policy.context) if earlier else ""
            reach: tuple[Trace, ...] = ()
            if context:
                begin = segment.start + segment.core.start - len(context)
                reach = tuple(trace for trace in self._traces if trace.end > begin)
            trace = Trace(segment.start + len(segment.text), clear=segment.core.start == segment.core.end)
            case = Case(segment, context, trace, reach, self._allowance)
            case.attempts = None if self._on_sentence is None else []
            cases.append(case)
            self._traces = (*reach, trace)
            # One character more than the context shows whether the cut falls inside a word.
            self._tail = (self._tail + segment.text)[-(self.policy.context + 1) :]
        return cases

    def release(self, case: Case) -> Release:
        """What is to be shown for a case; ``close`` takes note of it once it was."""
        if not case.settled:
            return Release(case.segment.text)
        if not self.policy.enforce:
            return Release(case.segment.text, self._monitored(case))
        after, text = self._replacement(case)
        edit = Edit(
            start=case.offset,
            end=case.offset + len(case.body),
            before=case.body,
            after=after,
            action=case.action,
            verdict=case.verdict_in_text,
            verdict_after=case.verdict_after,
            similarity=case.similarity,
            acceptable=case.acceptable,
            failed_checks=case.tried,
        )
        return Release(text, edit)

    def _monitored(self, case: Case) -> Edit:
        """The edit that would be made: nothing changes, and the rewriter was not asked."""
        return Edit(
            start=case.offset,
            end=case.offset + len(case.body),
            before=case.body,
            after=case.body,
            action=Action.PASSED,
            verdict=case.verdict_in_text,
            verdict_after=case.verdict_in_text,
            failed_checks=case.tried,
            would=case.action,
        )

    def close(self, case: Case, release: Release) -> None:
        """Takes note of a case whose release was handed out."""
        if case.degraded:
            self._degraded.update(dict.fromkeys(case.degraded))
        if case.failures:
            self._failures.update(dict.fromkeys(case.failures))
        self._before.append(case.verdict_in_text)
        is_changed = case.settled and self.policy.enforce
        self._after.append(case.verdict_after if is_changed else case.verdict_in_text)
        self._released.append(release.text)
        if release.edit is not None:
            self._edits.append(release.edit)
        if self._on_sentence is not None and case.body:
            self._on_sentence(
                Sentence(
                    start=case.offset,
                    text=case.body,
                    verdict=case.verdict_in_text,
                    edit=release.edit,
                    attempts=tuple(case.attempts or ()),
                )
            )

    def _replacement(self, case: Case) -> tuple[str, str]:
        """What stands for the core, and the whole text to release for the segment."""
        text, core = case.segment.text, case.segment.core
        if case.action is not Action.BLOCKED:
            return case.after, text[: core.start] + case.after + text[core.end :]
        if self.policy.block == "raise":
            return "", ""
        return self.policy.refusal, text[: core.start] + self.policy.refusal

    def degrade(self, reason: str) -> None:
        """Notes why the text as a whole did not get a full pass."""
        self._degraded[reason] = None

    def outcome(self) -> Outcome:
        """What happened to the text as far as it was read."""
        decided = max(
            (edit.decided for edit in self._edits), key=lambda action: action.rank, default=Action.PASSED
        )
        action = decided if self.policy.enforce else Action.PASSED
        refused = action is Action.BLOCKED and self.policy.block == "whole"
        before = _strongest(self._before)
        return Outcome(
            text=self.policy.refusal if refused else "".join(self._released),
            action=action,
            verdict=before,
            verdict_after=_strongest(self._after) if self._edits else before,
            edits=tuple(self._edits),
            degraded=tuple(self._degraded),
            failures=tuple(self._failures),
            would=None if self.policy.enforce else decided,
        )


def _context(earlier: str, limit: int) -> str:
    """The last ``limit`` characters, from a word's start on, or nothing if they are blank."""
    if limit == 0:
        return ""
    tail = earlier[-limit:]
    if len(earlier) > limit and not earlier[-limit - 1].isspace():
        head, space, rest = tail.partition(" ")
        tail = rest if space else head
    return tail if tail.strip() else ""


def _strongest(verdicts: Iterable[Verdict]) -> Verdict:
    """The highest score per label, with all flags and spans."""
    verdicts = list(verdicts)
    scores: dict[str, float] = {}
    for verdict in verdicts:
        for label, score in verdict.scores.items():
            scores[label] = max(score, scores.get(label, 0.0))
    return Verdict(
        scores=FrozenDict(scores),
        flagged=any(verdict.flagged for verdict in verdicts),
        spans=tuple(span for verdict in verdicts for span in verdict.spans),
        unsupported=any(verdict.unsupported for verdict in verdicts),
    )
