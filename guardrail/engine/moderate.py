"""The one flow: read, detect, rewrite, verify, release.

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

from collections.abc import Callable, Sequence

from guardrail.engine.record import Case, Record
from guardrail.engine.scoring import judge
from guardrail.engine.steps import PAUSE, Flow, Read, Steps, UnfinishedError
from guardrail.outcome import Action
from guardrail.outcome.explanation import Sentence
from guardrail.policy import Policy
from guardrail.text.segment import Segment, Segmenter

__all__ = ["moderate"]


STRIDE = 8192
"""Characters cut into segments at a time: a driver may do something else after each stride."""


def moderate(policy: Policy, *, told: Callable[[Sentence], object] | None = None) -> Flow:
    """A flow that moderates one text under a policy and returns its Outcome.

    ``told`` is called with every sentence and all that was tried for it; by default no candidate is kept.
    """
    record = Record(policy, told=told)
    try:
        yield from _read(policy, record)
    except UnfinishedError:
        record.degrade("unfinished")
    return record.outcome()


def _read(policy: Policy, record: Record) -> Steps[None]:
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


def _settle(policy: Policy, segments: Sequence[Segment], record: Record) -> Steps[bool]:
    """Judges, mends and releases segments; True where nothing may follow."""
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
            from guardrail.engine.ladder import mend  # a third of the import; clean text needs none

            yield from mend(policy, flagged, record)
            if (yield from _release(cases[len(ready) :], record)):
                return True
    return False


def _release(cases: Sequence[Case], record: Record) -> Steps[bool]:
    for case in cases:
        release = record.release(case)
        if release.text:
            yield release  # where the flow ends here, nobody has seen it
        record.close(case, release)
        if case.action is Action.BLOCKED:
            return True
    return False
