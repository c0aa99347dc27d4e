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

from guardrail.flow.ladder import mend
from guardrail.flow.record import Record
from guardrail.flow.scoring import judge
from guardrail.flow.steps import Flow, Read, Release, Steps, UnfinishedError
from guardrail.outcome import Action
from guardrail.policy import Policy
from guardrail.segment import Segmenter

__all__ = ["moderate"]


def moderate(policy: Policy) -> Flow:
    """A flow that moderates one text under a policy and returns its Outcome."""
    record = Record(policy)
    try:
        yield from _moderate(policy, record)
    except UnfinishedError:
        record.degrade("unfinished")
    return record.outcome()


def _moderate(policy: Policy, record: Record) -> Steps[None]:
    segmenter = Segmenter(segment_min=policy.segment_min, segment_max=policy.segment_max)
    group = max(1, policy.batch // 2)  # a segment is scored alone and with its context
    reading = True
    while reading:
        chunk = yield Read()
        reading = chunk is not None
        segments = segmenter.feed(chunk) if reading else segmenter.close()
        for start in range(0, len(segments), group):
            cases = record.open(segments[start : start + group])
            yield from judge(policy, cases)
            if flagged := [case for case in cases if case.flagged]:
                yield from mend(policy, flagged, record)
            for case in cases:
                if released := record.close(case):
                    yield Release(released)
                if case.action is Action.BLOCKED:
                    return
